/** The enumerations of the module `etcd3`: names as it has them, and numbers as in the protocol. */

export const SortOrder = {
  None: 0,
  Ascend: 1,
  Descend: 2,
} as const;
export type SortOrder = (typeof SortOrder)[keyof typeof SortOrder];

export const SortTarget = {
  Key: 0,
  Version: 1,
  Create: 2,
  Mod: 3,
  Value: 4,
} as const;
export type SortTarget = (typeof SortTarget)[keyof typeof SortTarget];

export const CompareResult = {
  Equal: 0,
  Greater: 1,
  Less: 2,
  NotEqual: 3,
} as const;
export type CompareResult = (typeof CompareResult)[keyof typeof CompareResult];

export const CompareTarget = {
  Version: 0,
  Create: 1,
  Mod: 2,
  Value: 3,
  Lease: 4,
} as const;
export type CompareTarget = (typeof CompareTarget)[keyof typeof CompareTarget];

export const FilterType = {
  Noput: 0,
  Nodelete: 1,
} as const;
export type FilterType = (typeof FilterType)[keyof typeof FilterType];

export const EventType = {
  Put: 0,
  Delete: 1,
} as const;
export type EventType = (typeof EventType)[keyof typeof EventType];

export const AlarmAction = {
  Get: 0,
  Activate: 1,
  Deactivate: 2,
} as const;
export type AlarmAction = (typeof AlarmAction)[keyof typeof AlarmAction];

export const AlarmType = {
  None: 0,
  Nospace: 1,
  Corrupt: 2,
} as const;
export type AlarmType = (typeof AlarmType)[keyof typeof AlarmType];

export const DowngradeAction = {
  Validate: 0,
  Enable: 1,
  Cancel: 2,
} as const;
export type DowngradeAction = (typeof DowngradeAction)[keyof typeof DowngradeAction];

export const Permission = {
  Read: 0,
  Write: 1,
  Readwrite: 2,
} as const;
export type Permission = (typeof Permission)[keyof typeof Permission];
