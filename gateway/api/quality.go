package api

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
)

// Stream is what was measured of one direction of one leg of the calls that
// have ended: "in" is what came to us, "out" what we sent, as the far end's
// RTCP reported it (RFC 3550 §6.4).
type Stream struct {
	Leg, Direction string // "phone" or "conference", "in" or "out"
	Packets, Lost  uint64
	Loss           Histogram // share of the packets, by call
	Jitter         Histogram // seconds, by call
}

// Quality is what was measured of the calls that have ended.
type Quality struct {
	Streams       []Stream
	RoundTrip     map[string]Histogram // seconds by leg
	Heard, Sent   uint64               // digits of phones, and to phones
	ComfortFrames uint64               // packets of comfort noise to phones
}

// Histogram counts values up to bounds.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64 // values up to and including the key
}

// NewHistogram has the given bounds.
func NewHistogram(bounds ...float64) Histogram {
	h := Histogram{Buckets: make(map[float64]uint64, len(bounds))}
	for _, b := range bounds {
		h.Buckets[b] = 0
	}
	return h
}

// Observe counts a value.
func (h *Histogram) Observe(v float64) {
	h.Count++
	h.Sum += v
	for b := range h.Buckets {
		if v <= b {
			h.Buckets[b]++
		}
	}
}

// Clone returns a copy that shares nothing.
func (h Histogram) Clone() Histogram {
	h.Buckets = maps.Clone(h.Buckets)
	return h
}

var (
	descPackets = desc("media_packets_total", "RTP packets of calls that have ended.", "leg", "direction")
	descMissing = desc("media_packets_lost_total", "RTP packets of calls that have ended that did not arrive; of those that went out as the far end reported.", "leg", "direction")
	descLoss    = desc("call_loss_ratio", "Share of the RTP packets that did not arrive, of each call that has ended.", "leg", "direction")
	descJitter  = desc("call_jitter_seconds", "Interarrival jitter at the end of each call.", "leg", "direction")
	descRTT     = desc("call_round_trip_seconds", "Round trip by RTCP at the end of each call.", "leg")
	descDigits  = desc("digits_total", "Digits of calls that have ended: heard from phones, sent to phones.", "direction")
	descComfort = desc("comfort_noise_packets_total", "Packets of comfort noise to phones, of calls that have ended.")
)

// collect gives the measurements.
func (q Quality) collect(ch chan<- prometheus.Metric, count func(*prometheus.Desc, uint64, ...string)) {
	histogram := func(d *prometheus.Desc, h Histogram, labels ...string) {
		ch <- prometheus.MustNewConstHistogram(d, h.Count, h.Sum, h.Buckets, labels...)
	}
	for _, s := range q.Streams {
		count(descPackets, s.Packets, s.Leg, s.Direction)
		count(descMissing, s.Lost, s.Leg, s.Direction)
		histogram(descLoss, s.Loss, s.Leg, s.Direction)
		histogram(descJitter, s.Jitter, s.Leg, s.Direction)
	}
	for leg, h := range q.RoundTrip {
		histogram(descRTT, h, leg)
	}
	count(descDigits, q.Heard, "heard")
	count(descDigits, q.Sent, "sent")
	count(descComfort, q.ComfortFrames)
}
