/** The thread that checks a received database. It is a separate program in its own file. */
import { parentPort, workerData } from "node:worker_threads";
import { systemDisk } from "../../base/disk.ts";
import { messageOf } from "../../base/errors.ts";
import { problemOfReceived, type ReceivedData, type ReceivedResult } from "./received-check.ts";

const { path }: ReceivedData = workerData;
const answer = (result: ReceivedResult): void => parentPort!.postMessage(result);

problemOfReceived(systemDisk, path, async () => {}).then(
  (problem) => answer({ problem }),
  (error: unknown) => answer({ error: messageOf(error) }),
);
