package brewery

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// owner picks the shard that opens a room by weighted rendezvous hashing: each
// shard gets -weight/ln(h), with h in (0,1) from its name and the room, and the
// highest wins. Only the rooms of a shard that comes or goes move. Every
// gateway with the same shards picks the same; nil when none has weight.
func owner(shards []*Shard, r Room) *Shard {
	var best *Shard
	top := math.Inf(-1)
	for _, sh := range shards {
		if s := score(sh.name, sh.Weight(), r); s > top {
			best, top = sh, s
		}
	}
	return best
}

// score is -Inf for a shard without weight.
func score(shard string, weight int, r Room) float64 {
	if weight <= 0 {
		return math.Inf(-1)
	}
	// NUL stands in neither a name nor a normalised room.
	sum := sha256.Sum256([]byte(shard + "\x00" + r.Tenant + "\x00" + r.Name))
	h := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53)
	return -float64(weight) / math.Log(h)
}
