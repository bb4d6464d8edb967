import assert from "node:assert/strict";
import { test } from "node:test";
import { Subscribers } from "../../src/base/subscribers.ts";

test("every subscriber is called, in the order of subscription", () => {
  const told: string[] = [];
  const subscribers = new Subscribers<[word: string, count: number]>();
  subscribers.add((word, count) => told.push(`first ${word} ${count}`));
  subscribers.add((word, count) => told.push(`second ${word} ${count}`));
  subscribers.tell("event", 7);
  assert.deepEqual(told, ["first event 7", "second event 7"]);
});

test("an unsubscribed listener is no longer called, and the others are", () => {
  const told: string[] = [];
  const subscribers = new Subscribers();
  const end = subscribers.add(() => told.push("gone"));
  subscribers.add(() => told.push("stays"));
  end();
  end();
  subscribers.tell();
  assert.deepEqual(told, ["stays"]);
});

test("a subscriber added or removed during a notification changes the next one, not this one", () => {
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
