/** Bits of `Watcher.variant`. Watchers with equal range and variant get equal batches. */
export const variantBits = { prevKv: 1, noPut: 2, noDelete: 4 } as const;
export const VARIANT_COUNT = 8;
