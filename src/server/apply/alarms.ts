import { EMPTY_BYTES } from "../../base/protobuf.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import { AlarmMember, AlarmType } from "../../proto/etcdserverpb.ts";

/** Active alarms, stored in the bucket `alarm` (the encoded AlarmMember is the key). Source: etcd `v3alarm`. */
export class AlarmStore {
  #backend: Backend;
  readonly #alarms = new Map<string, AlarmMember>();
  #noSpace = false;
  #corrupt = false;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.recover(backend);
  }

  /** Reads everything again: a snapshot brought another backend. */
  recover(backend: Backend): void {
    this.#backend = backend;
    this.#alarms.clear();
    this.#backend.forEach("alarm", (key) => {
      const alarm = AlarmMember.decode(key);
      this.#alarms.set(nameOf(alarm), alarm);
    });
    this.#update();
  }

  /** True while any member is out of space: requests that grow the store are not applied. */
  get noSpace(): boolean {
    return this.#noSpace;
  }

  /** True while any member is known to be corrupt: requests are not applied. */
  get corrupt(): boolean {
    return this.#corrupt;
  }

  /** Alarms of one type, or all for NONE. */
  get(type: AlarmType): AlarmMember[] {
    return [...this.#alarms.values()].filter((alarm) => type === AlarmType.NONE || alarm.alarm === type);
  }

  activate(memberId: bigint, type: AlarmType): AlarmMember {
    const alarm = AlarmMember.create({ memberId, alarm: type });
    const old = this.#alarms.get(nameOf(alarm));
    if (old !== undefined) return old;
    this.#alarms.set(nameOf(alarm), alarm);
    this.#backend.put("alarm", AlarmMember.encode(alarm), EMPTY_BYTES);
    this.#update();
    return alarm;
  }

  /** The disarmed alarm; undefined when there was none. */
  deactivate(memberId: bigint, type: AlarmType): AlarmMember | undefined {
    const name = nameOf({ memberId, alarm: type });
    const alarm = this.#alarms.get(name);
    if (alarm === undefined) return undefined;
    this.#alarms.delete(name);
    this.#backend.delete("alarm", AlarmMember.encode(alarm));
    this.#update();
    return alarm;
  }

  #update(): void {
    this.#noSpace = this.get(AlarmType.NOSPACE).length > 0;
    this.#corrupt = this.get(AlarmType.CORRUPT).length > 0;
  }
}

const nameOf = (alarm: AlarmMember): string => `${alarm.memberId}/${alarm.alarm}`;
