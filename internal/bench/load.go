package main

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"brewline/internal/jitsitest/jvb"
)

const (
	opusPT      = 111
	levelID     = 1
	maxSpeakers = 5
	// phoneReport is how often a phone sends RTCP.
	phoneReport = 5 * time.Second
)

// A party is one call as the generator sees it: a phone, and a videobridge
// behind which people speak.
type party struct {
	rtp, rtcp *socket                  // the phone's
	say       func(packet []byte) bool // to the gateway, from the videobridge
	// report, if any, sends the videobridge's RTCP. The simulated videobridge
	// does that by itself.
	report func()
	// sent, if any, is told of the frames that go out, just before they do.
	sent func(phone bool, pos int)
	// take, if any, is given what came to the phone instead of counting it.
	take func(packet []byte, at time.Time)

	phone    stream
	speakers [maxSpeakers]stream
	phase    [maxSpeakers + 1]int // ms within a packet time: of the phone, of the speakers
}

// stream is where one RTP stream is.
type stream struct {
	ssrc uint32
	seq  uint16
	ts   uint32
	pos  int // in the speech
}

func (s *stream) next(ticks uint32) {
	s.seq++
	s.ts += ticks
	s.pos++
}

// A load speaks for all parties from one goroutine and hardly looks at what
// comes back: it must not be what is measured. Packets of different streams are
// spread over the packet time, as they are in life.
type load struct {
	opus, pcmu []frame
	parties    []*party
	speakers   atomic.Int32 // in every conference
	received   atomic.Uint64
	late       []float64 // by how many ms it was late, each ms; to be read after end
	stop       chan struct{}
	done       sync.WaitGroup
	packet     []byte
}

var speech struct {
	once       sync.Once
	opus, pcmu []frame
	err        error
}

// newLoad prepares the streams; the same parties always get the same phases.
func newLoad(parties []*party, speakers int) (*load, error) {
	speech.once.Do(func() {
		for _, s := range []struct {
			rate   int
			encode func([]int16) ([]frame, error)
			to     *[]frame
		}{
			{48000, func(pcm []int16) ([]frame, error) { return opusFrames(pcm, 5) }, &speech.opus},
			{8000, pcmuFrames, &speech.pcmu},
		} {
			pcm, err := flowing(s.rate)
			if err == nil {
				*s.to, err = s.encode(pcm)
			}
			if err != nil {
				speech.err = err
			}
		}
	})
	if speech.err != nil {
		return nil, speech.err
	}
	l := &load{opus: speech.opus, pcmu: speech.pcmu, parties: parties, stop: make(chan struct{}), packet: make([]byte, 0, 1500)}
	l.speakers.Store(int32(speakers))
	r := rand.New(rand.NewPCG(1, uint64(len(parties))))
	for i, p := range parties {
		p.phase[0] = (i*20/len(parties) + r.IntN(2)) % 20
		p.phone = stream{r.Uint32() | 1, uint16(r.Uint32()), r.Uint32(), r.IntN(len(l.pcmu))}
		for k := range p.speakers {
			p.phase[k+1] = r.IntN(20)
			p.speakers[k] = stream{r.Uint32() | 1, uint16(r.Uint32()), r.Uint32(), r.IntN(len(l.opus))}
		}
	}
	return l, nil
}

func (l *load) start() {
	l.done.Go(l.run)
}

// end stops speaking.
func (l *load) end() {
	close(l.stop)
	l.done.Wait()
}

func (l *load) run() {
	began := time.Now()
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		default:
		}
		due := began.Add(time.Duration(i) * time.Millisecond)
		time.Sleep(time.Until(due))
		l.late = append(l.late, ms(time.Since(due)))
		l.tick(i)
	}
}

// tick sends what is due in a millisecond, and looks at the sockets of each
// phone once a second.
func (l *load) tick(ms int) {
	speakers := int(l.speakers.Load())
	n := len(l.parties)
	for i, p := range l.parties {
		if ms%20 == p.phase[0] {
			f := &l.pcmu[p.phone.pos%len(l.pcmu)]
			if p.sent != nil {
				p.sent(true, p.phone.pos)
			}
			b := jvb.AppendRTP(l.packet[:0], 0, p.phone.seq, p.phone.ts, p.phone.ssrc, 0, 0)
			p.rtp.write(append(b, f.payload...))
			p.phone.next(160)
		}
		for k := range p.speakers[:speakers] {
			if ms%20 == p.phase[k+1] {
				s := &p.speakers[k]
				f := &l.opus[s.pos%len(l.opus)]
				if p.sent != nil {
					p.sent(false, s.pos)
				}
				b := jvb.AppendRTP(l.packet[:0], opusPT, s.seq, s.ts, s.ssrc, levelID, f.level|0x80)
				p.say(append(b, f.payload...))
				s.next(960)
			}
		}
		if at := 1000 * i / n; ms%1000 == at {
			if p.take != nil {
				for b, at := p.rtp.readStamped(); b != nil; b, at = p.rtp.readStamped() {
					p.take(b, at)
				}
			}
			l.received.Add(p.rtp.drain() + p.rtcp.drain())
		}
		if at := int(phoneReport/time.Millisecond) * i / n; ms%int(phoneReport/time.Millisecond) == at {
			p.rtcp.write(receiverReport(l.packet[:0], p.phone.ssrc, 0))
		}
		if p.report != nil && ms%500 == 500*i/n {
			p.report()
		}
	}
}

// receiverReport is a compound RTCP packet with one block (RFC 3550 §6.4.2).
func receiverReport(b []byte, ssrc, of uint32) []byte {
	b = append(b, 0x81, 201, 0, 7)
	b = binary.BigEndian.AppendUint32(b, ssrc)
	b = binary.BigEndian.AppendUint32(b, of)
	return append(b, make([]byte, 20)...)
}
