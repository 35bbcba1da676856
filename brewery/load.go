package brewery

import (
	"math"
	"strconv"
	"strings"
	"sync"

	"brewline/config"
)

// Load is how busy the whole process is, as every brewery shows it.
type Load struct {
	Conferences  int     // calls
	Participants int     // in their conferences, without Jicofo
	Stress       float64 // 0 idle, 1 full
	Draining     bool    // no new calls are taken
}

// advert is what breweries are told beside a shard's own region.
type advert struct {
	mu      sync.Mutex
	load    Load
	canDial map[string]bool // by shard
}

// keep forgets shards that are not configured.
func (a *advert) keep(cfg *config.Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.canDial {
		if cfg.Shard(name) == nil {
			delete(a.canDial, name)
		}
	}
}

// SetLoad tells every brewery how busy the process is: at once, but no brewery
// more often than once in [Timers].PresenceGap, and with more than fifty
// breweries each of them less often, down to once in [Timers].Presence.
func (s *Set) SetLoad(l Load) {
	s.advert.mu.Lock()
	same := s.advert.load == l
	s.advert.load = l
	s.advert.mu.Unlock()
	if same {
		return
	}
	for _, d := range s.all() {
		for _, sh := range d.snap.Load().shards {
			sh.poke()
		}
	}
}

// SetCanDial says whether a shard may dial at the moment. Until told, it may
// not.
func (s *Set) SetCanDial(shard string, can bool) {
	s.advert.mu.Lock()
	same := s.advert.canDial[shard] == can
	s.advert.canDial[shard] = can
	s.advert.mu.Unlock()
	if same {
		return
	}
	for _, d := range s.all() {
		if sh := d.Shard(shard); sh != nil {
			sh.poke()
		}
	}
}

// poke has a brewery told what is new.
func (sh *Shard) poke() {
	select {
	case sh.poked <- struct{}{}:
	default:
	}
}

// stats is what a shard's brewery is told, under the names that Jigasi has.
// Jicofo reads participants, region, graceful_shutdown and supports_sip,
// Prosody's mod_muc_jigasi_invite reads stress_level and supports_sip.
func (sh *Shard) stats() map[string]string {
	a := &sh.set.advert
	a.mu.Lock()
	l, can := a.load, a.canDial[sh.name]
	a.mu.Unlock()
	m := map[string]string{
		"conferences":            strconv.Itoa(l.Conferences),
		"participants":           strconv.Itoa(l.Participants),
		"graceful_shutdown":      strconv.FormatBool(l.Draining),
		"stress_level":           stress(l.Stress),
		"version":                sh.set.o.Version,
		"supports_transcription": "false",
		"supports_sip":           strconv.FormatBool(can),
	}
	if r := sh.Config().Region; r != "" {
		m["region"] = r
	}
	return m
}

// stress writes the number with two decimals at most and one at least, as Java
// does.
func stress(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 1
	}
	s := strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
