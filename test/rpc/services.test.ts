import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { status } from "@grpc/grpc-js";
import protobuf from "protobufjs";
import descriptor from "protobufjs/ext/descriptor.js";
import { protoSources } from "../../src/proto/sources.ts";
import { HealthService, ServingStatus } from "../../src/rpc/health.ts";
import { registerReflection } from "../../src/rpc/reflection.ts";
import { standardProtos } from "../../src/rpc/standard-protos.ts";
import { type GrpcClient, TestServer } from "./harness.ts";

const types = new protobuf.Root();
for (const text of Object.values(standardProtos)) protobuf.parse(text, types, { keepCase: true });
const encode = (type: string, fields: object): Buffer => {
  const codec = types.lookupType(type);
  return Buffer.from(codec.encode(codec.fromObject(fields)).finish());
};
// biome-ignore lint/suspicious/noExplicitAny: decoded by name
const decode = (type: string, bytes: Uint8Array): any => {
  const codec = types.lookupType(type);
  return codec.toObject(codec.decode(bytes), { enums: String, defaults: true, oneofs: true });
};

describe("standard services", () => {
  let server: TestServer;
  let client: GrpcClient;
  let health: HealthService;

  before(async () => {
    server = await TestServer.start();
    health = new HealthService(server.rpc);
    registerReflection(server.rpc, protoSources);
    server.rpc.unary("/etcdserverpb.KV/Range", (call) => call.respond(call.message));
    client = server.client();
  });
  after(() => server.stop());

  const check = async (service: string): Promise<string> =>
    decode(
      "grpc.health.v1.HealthCheckResponse",
      await client.call("/grpc.health.v1.Health/Check", encode("grpc.health.v1.HealthCheckRequest", { service })),
    ).status;

  test("health: a server serves from the start, and an unknown service is NOT_FOUND", async () => {
    assert.equal(await check(""), "SERVING");
    await assert.rejects(check("nothing"), (error: { code: number; details: string }) => {
      assert.deepEqual([error.code, error.details], [status.NOT_FOUND, "unknown service"]);
      return true;
    });
    await assert.rejects(client.call("/grpc.health.v1.Health/Check", Buffer.from([10, 5, 1])), {
      code: status.INTERNAL,
    });
  });

  test("health: a watch sends the current status and every change, once", async () => {
    const stream = client.stream("/grpc.health.v1.Health/Watch");
    stream.on("error", () => {});
    const seen: string[] = [];
    let wake = (): void => {};
    stream.on("data", (bytes: Buffer) => {
      seen.push(decode("grpc.health.v1.HealthCheckResponse", bytes).status);
      wake();
    });
    const next = async (count: number): Promise<void> => {
      while (seen.length < count) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    stream.write(encode("grpc.health.v1.HealthCheckRequest", { service: "late" }));
    await next(1);
    health.set("late", ServingStatus.serving);
    await next(2);
    health.set("late", ServingStatus.serving);
    health.set("late", ServingStatus.notServing);
    await next(3);
    assert.deepEqual(seen, ["SERVICE_UNKNOWN", "SERVING", "NOT_SERVING"]);
    stream.cancel();
    const list = decode(
      "grpc.health.v1.HealthListResponse",
      await client.call("/grpc.health.v1.Health/List", Buffer.alloc(0)),
    );
    assert.deepEqual(list.statuses, { "": { status: "SERVING" }, late: { status: "NOT_SERVING" } });
  });

  for (const version of ["v1", "v1alpha"]) {
    const ask = (...questions: object[]): Promise<ReturnType<typeof decode>[]> =>
      new Promise((resolve, reject) => {
        const stream = client.stream(`/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`);
        const answers: unknown[] = [];
        stream.on("data", (bytes: Buffer) =>
          answers.push(decode(`grpc.reflection.${version}.ServerReflectionResponse`, bytes)),
        );
        stream.on("error", reject).on("end", () => resolve(answers));
        for (const question of questions) {
          stream.write(encode(`grpc.reflection.${version}.ServerReflectionRequest`, question));
        }
        stream.end();
      });

    test(`reflection ${version} lists the services and describes their files with all imports`, async () => {
      const [services, file, symbol, missing, extensions] = await ask(
        { list_services: "*" },
        { file_by_filename: "etcdserverpb/rpc.proto" },
        { file_containing_symbol: "grpc.health.v1.Health.Check" },
        { file_containing_symbol: "no.Such" },
        { all_extension_numbers_of_type: "etcdserverpb.RangeRequest" },
      );
      const names = services.list_services_response.service.map((each: { name: string }) => each.name);
      assert.deepEqual(names, [
        "etcdserverpb.KV",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
      ]);
      // The files alone form a complete set of types.
      const set = (descriptor.FileDescriptorSet as unknown as protobuf.Type).fromObject({
        file: file.file_descriptor_response.file_descriptor_proto.map((bytes: Uint8Array) =>
          (descriptor.FileDescriptorProto as unknown as protobuf.Type).decode(bytes),
        ),
      });
      const root = (
        protobuf.Root as unknown as { fromDescriptor(set: protobuf.Message): protobuf.Root }
      ).fromDescriptor(set);
      root.resolveAll();
      assert.ok(root.lookupService("etcdserverpb.KV").methods["Range"]);
      assert.equal(
        root.lookupType("etcdserverpb.RangeResponse").fields["kvs"]!.resolvedType!.fullName,
        ".mvccpb.KeyValue",
      );
      assert.equal(symbol.original_request.file_containing_symbol, "grpc.health.v1.Health.Check");
      assert.equal(symbol.file_descriptor_response.file_descriptor_proto.length, 1);
      assert.deepEqual(missing.error_response, {
        error_code: status.NOT_FOUND,
        error_message: "Symbol not found: no.Such",
      });
      assert.equal(extensions.all_extension_numbers_response.base_type_name, "etcdserverpb.RangeRequest");
    });
  }
});
