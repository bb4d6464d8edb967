/** Metrics of the process: its event loop, the long requests that share it, processor, memory and files. */
import * as fs from "node:fs";
import type { LoopWatch } from "../../../base/loop-watch.ts";
import type { MetricsText } from "../../../base/metrics-text.ts";
import type { Turns } from "../../../base/turns.ts";

export function writeLoop(text: MetricsText, loop: LoopWatch): void {
  text
    .histogram(
      "kvorum_loop_turn_seconds",
      "Histogram of how long turns of the event loop took, during which nothing else was served.",
      [[{}, loop.turns]],
    )
    .gauge(
      "kvorum_loop_longest_turn_seconds",
      "The longest turn of the event loop in the last one to two minutes.",
      loop.longestMs / 1000,
    );
}

export function writeLongRequests(text: MetricsText, turns: Turns): void {
  text
    .gauge("kvorum_long_requests_active", "Active reads of more than one turn of the loop.", turns.active)
    .gauge("kvorum_long_requests_waiting", "Such reads that wait for their start.", turns.waiting)
    .counter("kvorum_long_requests_refused_total", "Such reads refused because too many waited.", turns.refused)
    .counter("kvorum_long_requests_slices_total", "Slices that long reads were cut into.", turns.slices);
}

export function writeProcess(text: MetricsText): void {
  const { rss } = process.memoryUsage();
  const cpu = process.cpuUsage();
  const maxFds = openFilesMax();
  const openFds = countFds();
  const statm = readProc("/proc/self/statm").split(" ");
  text
    .counter(
      "process_cpu_seconds_total",
      "Total user and system CPU time spent in seconds.",
      (cpu.user + cpu.system) / 1e6,
    )
    .gauge("process_resident_memory_bytes", "Resident memory size in bytes.", rss)
    .gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", Number(statm[0] ?? 0) * 4096)
    .gauge(
      "process_start_time_seconds",
      "Start time of the process since unix epoch in seconds.",
      performance.timeOrigin / 1000,
    )
    .gauge("process_open_fds", "Number of open file descriptors.", openFds)
    .gauge("process_max_fds", "Maximum number of open file descriptors.", maxFds)
    .gauge("os_fd_used", "The number of used file descriptors.", openFds)
    .gauge("os_fd_limit", "The file descriptor limit.", maxFds);
  const heap = process.memoryUsage();
  text
    .gauge("nodejs_heap_size_used_bytes", "Bytes of the JavaScript heap in use.", heap.heapUsed)
    .gauge("nodejs_external_memory_bytes", "Bytes of buffers outside of the JavaScript heap.", heap.external);
}

/** 0 when the system does not say. */
export function openFilesMax(): number {
  return Number(/Max open files\s+(\d+)/.exec(readProc("/proc/self/limits"))?.[1] ?? 0);
}

function readProc(path: string): string {
  try {
    return fs.readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function countFds(): number {
  try {
    return fs.readdirSync("/proc/self/fd").length;
  } catch {
    return 0;
  }
}
