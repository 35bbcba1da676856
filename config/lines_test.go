package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanLines(t *testing.T) {
	t.Parallel()
	got := scanLines("\ufeff# comment = [\n" +
		"a.b = 1 # [not.a.table]\n" +
		"text = \"\"\"\n[no] = 'x'\n\\\"\"\"\"\"\n" + // ends with a quote of its own
		"lit = '''\n\"'''\n" +
		"list = [ # why\n  \"x\", # ]\n  [ 'y', 'z' ],\n  { k = 1, \"l m\".n = 2 },\n]\n" +
		"[tab . \"q.r\"]\n" +
		"x = 1979-05-27 07:32:00\n" +
		"[[arr]]\n" +
		"k = { m = { n = [1,\n2] } }\n" +
		"[arr.sub]\n" +
		"s = 1\n" +
		"[[arr]]\n" +
		"[[arr.deep]]\n" +
		"v = \"\\u0041\"\n")
	want := lineMap{
		"a": 2, "a.b": 2, "text": 3, "lit": 6,
		"list": 8, "list[0]": 9, "list[1]": 10, "list[1][0]": 10, "list[1][1]": 10,
		"list[2]": 11, "list[2].k": 11, "list[2].l m": 11, "list[2].l m.n": 11,
		"tab.q.r": 13, "tab.q.r.x": 14,
		"arr[0]": 15, "arr[0].k": 16, "arr[0].k.m": 16, "arr[0].k.m.n": 16, "arr[0].k.m.n[0]": 16, "arr[0].k.m.n[1]": 17,
		"arr[0].sub": 18, "arr[0].sub.s": 19,
		"arr[1]": 20, "arr[1].deep[0]": 21, "arr[1].deep[0].v": 22,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if n := got.of("arr[1].deep[0].none.such"); n != 21 {
		t.Errorf("line of a missing key is %d, want its table's 21", n)
	}
}

func FuzzScanLines(f *testing.F) {
	f.Add("a = [[[{b='c'}]]]\n[[x]]\ny = \"\"\"z")
	f.Add("[\"\\")
	f.Fuzz(func(_ *testing.T, src string) { scanLines(src) })
}
