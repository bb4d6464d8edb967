/**
 * Sends datagrams over a Unix socket, which Node's modules cannot do: systemd's notify socket and the journal accept
 * nothing else. The calls go to libc through `koffi`, which brings prebuilt binaries; it is loaded when the first
 * sender is opened and never in a process that needs none.
 *
 * The kernel stamps each datagram with the process that sent it, so systemd sees the server itself (NotifyAccess=main)
 * and not a helper. Source: unix(7), sendto(2).
 */
export interface UnixDatagramSender {
  /** Sends one datagram to `path` (`@name` is an abstract address). Throws an error with the errno in its text. */
  send(path: string, bytes: Uint8Array): void;
  close(): void;
}

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
/** The path in a socket address, with its closing zero. */
const PATH_BYTES_MAX = 108;

export async function openUnixDatagram(): Promise<UnixDatagramSender> {
  if (process.platform !== "linux")
    throw new Error(`Unix datagrams are implemented for Linux, not ${process.platform}`);
  const { default: koffi } = await import("koffi");
  const libc = koffi.load(null);
  const socket = libc.func("int socket(int domain, int type, int protocol)");
  const sendto = libc.func(
    "int64_t sendto(int fd, const uint8_t *bytes, uint64_t length, int flags, const uint8_t *address, uint32_t size)",
  );
  const close = libc.func("int close(int fd)");
  const fail = (call: string): Error => {
    const errno = koffi.errno();
    const name = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
    return Object.assign(new Error(`${call}: ${name}`), { code: name });
  };

  const fd: number = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw fail("socket");
  return {
    send(path, bytes) {
      const address = socketAddress(path);
      const sent: number | bigint = sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length);
      if (Number(sent) < 0) throw fail(`sendto ${path}`);
    },
    close: () => void close(fd),
  };
}

/**
 * `sockaddr_un`: the family in the machine's order, then the path; an abstract one starts with a zero and has no
 * closing one.
 */
function socketAddress(path: string): Buffer {
  const abstract = path.startsWith("@");
  const name = Buffer.from(abstract ? `\0${path.slice(1)}` : `${path}\0`);
  if (name.length > PATH_BYTES_MAX) throw new Error(`socket path longer than ${PATH_BYTES_MAX - 1} bytes: ${path}`);
  const family = new Uint8Array(new Uint16Array([AF_UNIX]).buffer);
  return Buffer.concat([family, name]);
}
