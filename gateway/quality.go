package gateway

import (
	"slices"
	"sync"

	"brewline/gateway/api"
	"brewline/media"
)

// quality sums up what was measured of calls that have ended.
type quality struct {
	mu sync.Mutex
	q  api.Quality
}

func newQuality() *quality {
	k := &quality{q: api.Quality{RoundTrip: map[string]api.Histogram{}}}
	for _, leg := range []string{"phone", "conference"} {
		for _, direction := range []string{"in", "out"} {
			k.q.Streams = append(k.q.Streams, api.Stream{
				Leg: leg, Direction: direction,
				Loss:   api.NewHistogram(0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
				Jitter: api.NewHistogram(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
			})
		}
		k.q.RoundTrip[leg] = api.NewHistogram(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1)
	}
	return k
}

// ended adds an answered call.
func (k *quality) ended(s media.Stats) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, l := range []media.LegStats{s.Phone, s.Conference} {
		in, out := &k.q.Streams[2*i], &k.q.Streams[2*i+1]
		in.Packets += l.PacketsIn
		in.Lost += l.Lost
		if l.PacketsIn > 0 {
			in.Loss.Observe(l.LossIn())
			in.Jitter.Observe(l.Jitter.Seconds())
		}
		out.Packets += l.PacketsOut
		out.Lost += l.RemoteLost
		if l.Reports > 0 {
			out.Loss.Observe(l.LossOut())
			out.Jitter.Observe(l.RemoteJitter.Seconds())
		}
		if l.RoundTrip > 0 {
			h := k.q.RoundTrip[in.Leg]
			h.Observe(l.RoundTrip.Seconds())
			k.q.RoundTrip[in.Leg] = h
		}
	}
	k.q.Heard += s.DigitsHeard
	k.q.Sent += s.DigitsSent
	k.q.ComfortFrames += s.Phone.ComfortOut
}

// snapshot is what has been measured, to keep.
func (k *quality) snapshot() api.Quality {
	k.mu.Lock()
	defer k.mu.Unlock()
	q := k.q
	q.Streams = slices.Clone(q.Streams)
	for i := range q.Streams {
		s := &q.Streams[i]
		s.Loss, s.Jitter = s.Loss.Clone(), s.Jitter.Clone()
	}
	q.RoundTrip = map[string]api.Histogram{}
	for leg, h := range k.q.RoundTrip {
		q.RoundTrip[leg] = h.Clone()
	}
	return q
}
