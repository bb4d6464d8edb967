import assert from "node:assert/strict";
import { test } from "node:test";
import { Subscribers } from "../../src/base/subscribers.ts";

test("every subscriber is told, in the order in which they came", () => {
  const told: string[] = [];
  const subscribers = new Subscribers<[word: string, count: number]>();
  subscribers.add((word, count) => told.push(`first ${word} ${count}`));
  subscribers.add((word, count) => told.push(`second ${word} ${count}`));
  subscribers.tell("event", 7);
  assert.deepEqual(told, ["first event 7", "second event 7"]);
});

test("who has unsubscribed is told no more, and the others are", () => {
  const told: string[] = [];
  const subscribers = new Subscribers();
  const end = subscribers.add(() => told.push("gone"));
  subscribers.add(() => told.push("stays"));
  end();
  end();
  subscribers.tell();
  assert.deepEqual(told, ["stays"]);
});

test("a subscriber that comes or goes while others are told changes the next telling, not this one", () => {
  const told: string[] = [];
  const subscribers = new Subscribers();
  const end = subscribers.add(() => {
    told.push("first");
    end();
    subscribers.add(() => told.push("late"));
  });
  subscribers.add(() => told.push("second"));
  subscribers.tell();
  assert.deepEqual(told, ["first", "second"]);
  subscribers.tell();
  assert.deepEqual(told, ["first", "second", "second", "late"]);
});
