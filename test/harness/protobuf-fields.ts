/** The fields of a message without its definition: by number, in the order in which they came. */
export interface Fields {
  number(field: number): number;
  bytes(field: number): Buffer;
  text(field: number): string;
  message(field: number): Fields;
  messages(field: number): Fields[];
}

export function readMessage(buffer: Buffer): Fields {
  const found: { readonly field: number; readonly value: Buffer | number }[] = [];
  let pos = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = buffer[pos++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Buffer => buffer.subarray(pos, (pos += length));
  while (pos < buffer.length) {
    const tag = varint();
    const field = tag >>> 3;
    const wireType = tag & 7;
    if (wireType === 0) found.push({ field, value: varint() });
    else found.push({ field, value: take(wireType === 1 ? 8 : wireType === 5 ? 4 : varint()) });
  }
  const all = (wanted: number): (Buffer | number)[] =>
    found.filter(({ field }) => field === wanted).map(({ value }) => value);
  const bytes = (field: number): Buffer => {
    const value = all(field).at(-1);
    if (!Buffer.isBuffer(value)) throw new Error(`the message has no bytes in field ${field}`);
    return value;
  };
  return {
    number: (field) => Number(all(field).at(-1) ?? 0),
    bytes,
    text: (field) => bytes(field).toString(),
    message: (field) => readMessage(bytes(field)),
    messages: (field) => all(field).map((value) => readMessage(value as Buffer)),
  };
}
