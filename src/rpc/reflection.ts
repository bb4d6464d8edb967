/**
 * Server reflection, `grpc.reflection.v1` and `v1alpha` (the same messages): lets tools such as grpcurl call a server
 * without its .proto files. Descriptors are built from the .proto texts on the first request, by protobufjs, which is
 * loaded only then. Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
 */
import { Code } from "../base/grpc-codes.ts";
import { type Reader, Writer } from "../base/protobuf.ts";
import type { StreamCall } from "./contract.ts";
import { protobufRequest } from "./decode.ts";
import type { DescriptorIndex } from "./descriptors.ts";
import type { RpcServer } from "./server.ts";
import { standardProtos } from "./standard-protos.ts";

const VERSIONS = ["v1", "v1alpha"];

/** `sources`: the text of each .proto file by its path. The standard services' files are added. */
export function registerReflection(rpc: RpcServer, sources: Readonly<Record<string, string>>): void {
  let index: DescriptorIndex | undefined;
  let loading: Promise<DescriptorIndex> | undefined;
  const load = (): Promise<DescriptorIndex> => {
    loading ??= import("./descriptors.ts").then(({ buildDescriptors }) => {
      index = buildDescriptors({ ...standardProtos, ...sources });
      return index;
    });
    return loading;
  };

  const handle = (call: StreamCall): void => {
    call.onMessage = (bytes) => {
      const question = protobufRequest(call, bytes, readQuestion);
      if (question === undefined) return;
      if (index !== undefined) {
        if (!call.send(answer(bytes, question, index, rpc))) call.pauseReading();
        return;
      }
      call.pauseReading();
      load().then(
        (loaded) => {
          if (call.cancelled) return;
          call.send(answer(bytes, question, loaded, rpc));
          call.resumeReading();
        },
        (error: Error) => {
          if (!call.cancelled) call.fail(Code.INTERNAL, `cannot build descriptors: ${error.message}`);
        },
      );
    };
    call.onDrain = () => call.resumeReading();
    call.onHalfClose = () => call.end();
  };
  for (const version of VERSIONS)
    rpc.stream(`/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`, handle);
}

interface Question {
  readonly kind: number;
  readonly text: string;
  readonly number: number;
}

const Kind = { none: 0, fileByName: 3, fileOfSymbol: 4, fileOfExtension: 5, extensionNumbers: 6, services: 7 } as const;

function readQuestion(reader: Reader): Question {
  let kind: number = Kind.none;
  let text = "";
  let number = 0;
  while (reader.pos < reader.end) {
    const tag = reader.uint32();
    const field = tag >>> 3;
    if ((tag & 7) !== 2 || field < Kind.fileByName || field > Kind.services) {
      reader.skip(tag);
      continue;
    }
    kind = field;
    if (field !== Kind.fileOfExtension) {
      text = reader.string();
      continue;
    }
    const stop = reader.nested();
    while (reader.pos < stop) {
      const inner = reader.uint32();
      if (inner === 10) text = reader.string();
      else if (inner === 16) number = reader.int32();
      else reader.skip(inner);
    }
    reader.leave(stop);
  }
  return { kind, text, number };
}

/** The response, which repeats the original request. */
function answer(original: Uint8Array, question: Question, index: DescriptorIndex, rpc: RpcServer): Uint8Array {
  const writer = new Writer().reset();
  switch (question.kind) {
    case Kind.services:
      writeServices(writer, [...rpc.services].sort());
      break;
    case Kind.fileByName:
      writeFiles(writer, index.fileByName(question.text), `File not found: ${question.text}`);
      break;
    case Kind.fileOfSymbol:
      writeFiles(writer, index.fileOfSymbol(question.text), `Symbol not found: ${question.text}`);
      break;
    case Kind.fileOfExtension:
      writeError(writer, Code.NOT_FOUND, `Extension not found: ${question.text} ${question.number}`);
      break;
    case Kind.extensionNumbers:
      if (index.fileOfSymbol(question.text) === undefined) {
        writeError(writer, Code.NOT_FOUND, `Type not found: ${question.text}`);
      } else writeNested(writer, 5, () => writeText(writer, 1, question.text));
      break;
    default:
      writeError(writer, Code.INVALID_ARGUMENT, "the request asks for nothing that this server knows");
  }
  writer.bytes(original);
  writer.tag(2 * 8 + 2);
  return writer.finish();
}

function writeServices(writer: Writer, names: readonly string[]): void {
  writeNested(writer, 6, () => {
    for (const name of [...names].reverse()) writeNested(writer, 1, () => writeText(writer, 1, name));
  });
}

function writeFiles(writer: Writer, files: readonly Uint8Array[] | undefined, missing: string): void {
  if (files === undefined) return writeError(writer, Code.NOT_FOUND, missing);
  writeNested(writer, 4, () => {
    for (const file of [...files].reverse()) {
      writer.bytes(file);
      writer.tag(1 * 8 + 2);
    }
  });
}

function writeError(writer: Writer, code: number, text: string): void {
  writeNested(writer, 7, () => {
    writeText(writer, 2, text);
    writer.int32(code);
    writer.tag(1 * 8);
  });
}

function writeText(writer: Writer, field: number, text: string): void {
  writer.string(text);
  writer.tag(field * 8 + 2);
}

/** The writer works from back to front: first the content, then its length and tag. */
function writeNested(writer: Writer, field: number, content: () => void): void {
  const mark = writer.length;
  content();
  writer.uint32(writer.length - mark);
  writer.tag(field * 8 + 2);
}
