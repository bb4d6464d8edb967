import { processIo } from "../utl/io.ts";
import { main as utl } from "../utl/main.ts";

/** etcdutl as a process. Resolves with the exit code. */
export const main = (argv: readonly string[]): Promise<number> => utl(processIo(argv));
