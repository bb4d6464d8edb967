/** One request of a pod: to another pod, to its own engine, or to the API of Kubernetes. */
import { get as httpGet } from "node:http";
import { get as httpsGet, type RequestOptions } from "node:https";
import type { Clock } from "../base/clock.ts";

const ANSWER_MS = 3_000;
const BODY_BYTES_MAX = 4 * 1024 * 1024;

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** Rejects when there is no whole answer within three seconds, or it is too long. */
export function getAnswer(
  url: string,
  options: Pick<RequestOptions, "ca" | "cert" | "key" | "headers">,
  clock: Clock,
): Promise<Answer> {
  const get = url.startsWith("https:") ? httpsGet : httpGet;
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      timer.cancel();
      request.destroy();
      reject(error);
    };
    const request = get(url, { ...options, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (piece: string) => {
        body += piece;
        if (body.length > BODY_BYTES_MAX) fail(new Error("the answer is too long"));
      });
      response.on("end", () => {
        timer.cancel();
        resolve({ status: response.statusCode ?? 0, body });
      });
      // Also when the connection breaks in the middle of the body.
      response.on("error", fail);
    });
    const timer = clock.after(ANSWER_MS, () => fail(new Error(`no answer within ${ANSWER_MS / 1000} s`)));
    request.on("error", fail);
  });
}
