import assert from "node:assert/strict";
import test from "node:test";
import { Histogram } from "../../src/base/histogram.ts";
import { MetricsText } from "../../src/base/metrics-text.ts";

test("a counter and a gauge are written with help, type and value", () => {
  const text = new MetricsText().counter("puts_total", "Puts.", 3).gauge("up", "Whether up.", 0.5).toString();
  assert.equal(
    text,
    "# HELP puts_total Puts.\n# TYPE puts_total counter\nputs_total 3\n# HELP up Whether up.\n# TYPE up gauge\nup 0.5\n",
  );
});

test("a family has one sample for each set of labels", () => {
  const text = new MetricsText().family("calls", "counter", "Calls.", [
    [{ method: "Put", code: "OK" }, 1],
    [{ method: "Range" }, 2],
  ]);
  assert.deepEqual(text.toString().split("\n").slice(2), [
    'calls{method="Put",code="OK"} 1',
    'calls{method="Range"} 2',
    "",
  ]);
});

test("a histogram's buckets are cumulative and end with the total", () => {
  const histogram = new Histogram([0.001, 1]);
  for (const value of [0.0005, 0.5, 0.25, 7]) histogram.observe(value);
  const text = new MetricsText().histogram("took_seconds", "Took.", [[{ disk: "a" }, histogram]]).toString();
  assert.deepEqual(text.split("\n").slice(1), [
    "# TYPE took_seconds histogram",
    'took_seconds_bucket{disk="a",le="0.001"} 1',
    'took_seconds_bucket{disk="a",le="1"} 3',
    'took_seconds_bucket{disk="a",le="+Inf"} 4',
    'took_seconds_sum{disk="a"} 7.7505',
    'took_seconds_count{disk="a"} 4',
    "",
  ]);
});

test("quotes, backslashes and line ends are escaped, quotes only in labels", () => {
  const text = new MetricsText().family("a", "gauge", 'C:\\ "x"\ny', [[{ path: 'C:\\ "x"\ny' }, 1]]).toString();
  assert.equal(text, '# HELP a C:\\\\ "x"\\ny\n# TYPE a gauge\na{path="C:\\\\ \\"x\\"\\ny"} 1\n');
});

test("values that are not finite have the names that Prometheus reads", () => {
  const text = new MetricsText();
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) text.sample("v", {}, value);
  assert.equal(text.toString(), "v NaN\nv +Inf\nv -Inf\n");
});

test("sums lose floating-point noise, whole numbers lose nothing", () => {
  const text = new MetricsText().sample("v", {}, 0.1 + 0.2).sample("v", {}, 2 ** 53 - 1);
  assert.equal(text.toString(), "v 0.3\nv 9007199254740991\n");
});
