package jitsitest

import (
	"encoding/binary"
	"sync"
	"time"

	"gopkg.in/hraban/opus.v2"

	"brewline/internal/tone"
)

// recorder decodes what a browser receives into one timeline per source.
type recorder struct {
	deaf bool
	keep int // samples kept per source

	mu      sync.Mutex
	epoch   time.Time // of the first packet: sample 0 of every timeline
	tracks  map[uint32]*track
	owners  map[uint32]string
	packets uint64
	bad     uint64 // packets that do not parse or decode
}

// track is the timeline of one source.
type track struct {
	dec        *opus.Decoder
	seq        uint16
	ts         uint32 // expected next
	base       int    // position of pcm[0]
	pcm        []int16
	packets    uint64
	lost, late uint64
}

func newRecorder(deaf bool, keep time.Duration) *recorder {
	return &recorder{deaf: deaf, keep: int(keep.Seconds() * rate), tracks: map[uint32]*track{}, owners: map[uint32]string{}}
}

func (r *recorder) own(ssrc uint32, owner string) {
	r.mu.Lock()
	r.owners[ssrc] = owner
	r.mu.Unlock()
}

// audio takes a decrypted RTP packet.
func (r *recorder) audio(p []byte, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets++
	payload, ok := rtpPayload(p)
	if !ok {
		r.bad++
		return
	}
	if r.deaf {
		return
	}
	ssrc, seq, ts := binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint32(p[4:])
	if r.epoch.IsZero() {
		r.epoch = now
	}
	t := r.tracks[ssrc]
	if t == nil {
		dec, err := opus.NewDecoder(rate, 1)
		if err != nil {
			r.bad++
			return
		}
		t = &track{dec: dec, seq: seq, ts: ts, base: int(now.Sub(r.epoch).Seconds() * rate)}
		r.tracks[ssrc] = t
	}
	if err := t.take(seq, ts, payload, int(now.Sub(r.epoch).Seconds()*rate)); err != nil {
		r.bad++
	}
	if n := len(t.pcm) - r.keep; n > r.keep/2 {
		t.pcm = append([]int16(nil), t.pcm[n:]...)
		t.base += n
	}
}

// take decodes one packet and puts it where its timestamp says; what is missing
// is concealed if packets were lost, and silence if none were sent.
func (t *track) take(seq uint16, ts uint32, payload []byte, at int) error {
	t.packets++
	missing, gap := int(int16(seq-t.seq)), int(int32(ts-t.ts))
	switch {
	case len(t.pcm) == 0:
	case missing < 0 && missing > -1000:
		t.late++
		return nil
	case missing < 0 || missing > 1000 || gap < 0 || gap > 10*rate: // a new stream under an old name
		t.silence(at - t.base - len(t.pcm))
	case missing > 0 && gap <= 6*frameSize:
		t.lost += uint64(missing)
		buf := make([]int16, gap)
		if gap > frameSize {
			if err := t.dec.DecodePLC(buf[:gap-frameSize]); err != nil {
				return err
			}
		}
		if gap >= frameSize {
			if err := t.dec.DecodeFEC(payload, buf[gap-frameSize:]); err != nil {
				return err
			}
		}
		t.pcm = append(t.pcm, buf...)
	default:
		t.lost += uint64(missing)
		t.silence(gap)
	}
	var buf [6 * frameSize]int16
	n, err := t.dec.Decode(payload, buf[:])
	t.seq, t.ts = seq+1, ts+uint32(n)
	if err != nil {
		return err
	}
	t.pcm = append(t.pcm, buf[:n]...)
	return nil
}

func (t *track) silence(n int) {
	if n > 0 {
		t.pcm = append(t.pcm, make([]int16, n)...)
	}
}

// rtpPayload is the payload of an RTP packet (RFC 3550 §5.1).
func rtpPayload(p []byte) ([]byte, bool) {
	if len(p) < 12 || p[0]>>6 != 2 {
		return nil, false
	}
	end, n := len(p), 12+4*int(p[0]&15)
	if p[0]&0x10 != 0 {
		if len(p) < n+4 {
			return nil, false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(p[n+2:]))
	}
	if p[0]&0x20 != 0 {
		end -= int(p[len(p)-1])
	}
	if n >= end {
		return nil, false
	}
	return p[n:end], true
}

// mix adds the timelines of the sources that pick accepts. It starts with the
// first audio of any of them.
func (r *recorder) mix(pick func(ssrc uint32, owner string) bool) []int16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, to := -1, 0
	var list []*track
	for ssrc, t := range r.tracks {
		if !pick(ssrc, r.owners[ssrc]) || len(t.pcm) == 0 {
			continue
		}
		list = append(list, t)
		if from < 0 || t.base < from {
			from = t.base
		}
		to = max(to, t.base+len(t.pcm))
	}
	if from < 0 {
		return nil
	}
	out := make([]int16, to-from)
	for _, t := range list {
		tone.Add(out[t.base-from:], t.pcm)
	}
	return out
}

// since is the time of the first sample that mix gives of everybody.
func (r *recorder) since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := -1
	for _, t := range r.tracks {
		if len(t.pcm) > 0 && (from < 0 || t.base < from) {
			from = t.base
		}
	}
	if from < 0 {
		return time.Time{}
	}
	return r.epoch.Add(time.Duration(from) * time.Second / rate)
}

// ends are the positions up to which each source was heard.
func (r *recorder) ends() map[uint32]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[uint32]int{}
	for s, t := range r.tracks {
		out[s] = t.base + len(t.pcm)
	}
	return out
}

const earWindow = rate / 5

// hears looks for a tone in the newest audio of every accepted source, as far as
// it came after the marks.
func (r *recorder) hears(freq int, marks map[uint32]int, pick func(ssrc uint32, owner string) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ssrc, t := range r.tracks {
		if !pick(ssrc, r.owners[ssrc]) {
			continue
		}
		if t.base+len(t.pcm)-marks[ssrc] < earWindow || len(t.pcm) < earWindow {
			continue
		}
		if tone.Present(t.pcm[len(t.pcm)-earWindow:], rate, freq) {
			return true
		}
	}
	return false
}
