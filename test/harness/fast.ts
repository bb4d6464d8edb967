/**
 * What `npm run test:fast` leaves to `npm test`, which runs everything: single tests that take long, in files whose
 * other tests do not, and most rounds of tests that try many cases drawn from a seed. A file that takes long as a whole
 * says so in its first line instead (scripts/test.mjs).
 */
const fast = process.env["KVORUM_FAST"] === "1";

/** Options of a test that takes long. */
export const slow: { readonly skip: string | false } = { skip: fast && "takes long, so it is left to npm test" };

/** How many of so many rounds are run. */
export const rounds = (all: number): number => (fast ? Math.ceil(all / 8) : all);
