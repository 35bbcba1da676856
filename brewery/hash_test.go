package brewery

import (
	"fmt"
	"math"
	"testing"

	"brewline/config"
)

func hashed(weights map[string]int) []*Shard {
	s := &Set{log: Options{}.withDefaults().Logger}
	var out []*Shard
	for name, w := range weights {
		out = append(out, newShard(s, &config.Shard{Name: name, Weight: w}))
	}
	return out
}

// Other gateways, and this one after an upgrade, must pick the same. The
// values were worked out by a few lines in another language.
func TestOwnerIsStable(t *testing.T) {
	t.Parallel()
	for room, want := range map[Room]string{
		{Name: "standup"}:           "s3",
		{Name: "r%c3%a9union"}:      "s3",
		{Name: "a"}:                 "s1",
		{Name: "b"}:                 "s2",
		{Name: "c"}:                 "s3",
		{Name: "c", Tenant: "acme"}: "s2",
	} {
		for range 5 { // in any order of shards: maps have none
			if got := owner(hashed(map[string]int{"s1": 1, "s2": 1, "s3": 2}), room); got.name != want {
				t.Errorf("%s belongs to %s, want %s", room, got.name, want)
			}
		}
	}
}

func TestOwnerFollowsWeight(t *testing.T) {
	t.Parallel()
	weights := map[string]int{"s1": 1, "s2": 2, "s3": 5, "off": 0}
	shards := hashed(weights)
	const rooms = 40000
	got := map[string]float64{}
	for i := range rooms {
		got[owner(shards, Room{Name: fmt.Sprint("room", i)}).name]++
	}
	for name, w := range weights {
		want := float64(w) / 8
		share := got[name] / rooms
		if sigma := math.Sqrt(want * (1 - want) / rooms); math.Abs(share-want) > 5*sigma {
			t.Errorf("%s with weight %d has %.3f of the rooms, want %.3f", name, w, share, want)
		}
	}
	if owner(hashed(map[string]int{"off": 0}), Room{Name: "a"}) != nil || owner(nil, Room{Name: "a"}) != nil {
		t.Error("without weight nobody may own a room")
	}
}

// Only the rooms of a shard that goes move.
func TestOwnerMovesLittle(t *testing.T) {
	t.Parallel()
	all := hashed(map[string]int{"s1": 1, "s2": 1, "s3": 1, "s4": 1})
	fewer := hashed(map[string]int{"s1": 1, "s2": 1, "s3": 1})
	moved := 0
	for i := range 4000 {
		r := Room{Name: fmt.Sprint("room", i)}
		before, after := owner(all, r).name, owner(fewer, r).name
		if before == "s4" {
			moved++
		} else if before != after {
			t.Fatalf("%s moved from %s to %s", r, before, after)
		}
	}
	if moved < 800 || moved > 1200 {
		t.Errorf("%d of 4000 rooms were on s4", moved)
	}
}
