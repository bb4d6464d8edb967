import { openUnixDatagram } from "./unix-datagram.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Notifies systemd of the service's state (`Type=notify`), over the socket named in NOTIFY_SOCKET. This process sends
 * the datagram itself, so the default NotifyAccess=main is enough. Without the native call, the program
 * `systemd-notify` is tried; systemd accepts it from root or with NotifyAccess=all. Source: sd_notify(3).
 */
export interface SystemdNotifier {
  /** Sends a state such as "READY=1". Resolves to false when there is no systemd; rejects when sending failed. */
  notify(state: string): Promise<boolean>;
}

const NOTIFY_TIMEOUT_MS = 5000;

export function systemdNotifier(env: Environment): SystemdNotifier {
  const socket = env["NOTIFY_SOCKET"] ?? "";
  return {
    async notify(state) {
      if (socket === "") return false;
      try {
        await sendState(socket, state);
      } catch (error) {
        await callSystemdNotify(env, state, error as Error);
      }
      return true;
    },
  };
}

async function sendState(socket: string, state: string): Promise<void> {
  const sender = await openUnixDatagram();
  try {
    sender.send(socket, Buffer.from(state));
  } finally {
    sender.close();
  }
}

async function callSystemdNotify(env: Environment, state: string, first: Error): Promise<void> {
  const { execFile } = await import("node:child_process");
  const { promisify } = await import("node:util");
  const args = [`--pid=${process.pid}`, ...state.split("\n")];
  try {
    await promisify(execFile)("systemd-notify", args, { env: { ...env }, timeout: NOTIFY_TIMEOUT_MS });
  } catch (error) {
    throw new Error(`cannot notify systemd: ${first.message}; systemd-notify: ${(error as Error).message}`);
  }
}
