/** Where objects of a repository are: a directory, or a bucket of an S3-compatible service. */

export interface StoredObject {
  readonly name: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface PutOptions {
  /** Refuses with ERR_BACKUP_CONFLICT when the object exists. */
  readonly ifAbsent: boolean;
  /** Where the store can: nobody deletes or replaces it before this time, in milliseconds since 1970. */
  readonly keepUntilMs?: number | undefined;
}

/** Names are paths with `/`. An object is complete or not there, whatever happens meanwhile. */
export interface Store {
  /** As users write it, without credentials. */
  readonly url: string;
  list(): AsyncIterable<StoredObject>;
  /** Throws BackupError ERR_BACKUP_NO_OBJECT, ERR_BACKUP_STORE. */
  get(name: string): AsyncIterable<Uint8Array>;
  /** Throws BackupError ERR_BACKUP_CONFLICT, ERR_BACKUP_STORE. */
  put(name: string, bytes: AsyncIterable<Uint8Array>, options: PutOptions): Promise<void>;
  /** Without an error when it is not there. */
  remove(name: string): Promise<void>;
}

/** A small object at once; what is beyond `bytesMax` is left out. Throws BackupError. */
export async function readSmall(store: Store, name: string, bytesMax: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for await (const part of store.get(name)) {
    total += part.length;
    // A store that lies must not fill the memory.
    if (total > bytesMax) return Buffer.concat(parts);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

export async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  yield bytes;
}
