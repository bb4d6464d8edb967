/** The process of a job: runs the tasks it receives, one at a time, until its parent is gone. */
import { runTask, type Task } from "./jobs.ts";

process.on("message", (task: Task) => {
  void runTask(task).then((outcome) => process.send!(outcome));
});
process.on("disconnect", () => process.exit());
