package siptest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"brewline/internal/tone"
)

// amplitude of the tones a phone says: -12 dBFS peak.
const amplitude = 0.25

// maxHeard bounds the recording.
const maxHeard = 5 * time.Minute

// media is the RTP side of a call: one socket, a reader, and the shared clock
// to speak by.
type media struct {
	o    PhoneOptions
	conn Socket // RTP
	rtcp Socket
	wg   sync.WaitGroup
	rng  *rand.Rand

	mu        sync.Mutex
	closed    bool
	speaking  bool // on the clock
	began     time.Time
	remote    netip.AddrPort
	send      bool
	name      string // chosen codec, "" before
	f         format
	enc, dec  codec
	sendPT    uint8
	recvPT    map[uint8]bool
	eventPT   uint8
	recvEvent uint8
	version   int
	comfort   bool // agreed on
	srtp      sdes
	reports   reports

	// speaking
	gen       *tone.Generator
	freq      int
	pcm       []int16 // said before gen
	loop      []int16 // what pcm becomes at its end
	pending   []int16 // collected up to a packet
	seq       uint16
	ts        uint32
	ssrc      uint32
	marker    bool
	digits    []event
	digitDone []chan struct{}
	noise     byte // level of the comfort noise said instead, 0 none
	ticks     int
	sent      uint64
	octets    uint64

	// listening
	tape     []int16
	base     int // samples cut off the front
	anchored bool
	peerSSRC uint32
	anchorTS uint32
	anchorAt int // in samples since began
	lastSeq  uint16
	received uint64
	samples  uint64 // decoded
	rtcps    uint64
	lost     uint64
	comforts uint64
	lastAt   time.Time
	news     chan struct{} // closed and renewed with every packet
	inbox    []Info
	heardDig []byte
	lastDig  uint32
}

// event is a digit on its way out.
type event struct {
	code  byte
	frame int
	ts    uint32
}

func newMedia(o PhoneOptions, freq int) (*media, error) {
	m := &media{o: o, news: make(chan struct{}), ssrc: rand.Uint32(), seq: uint16(rand.Uint32()), ts: rand.Uint32(),
		freq: freq, marker: true, rng: rand.New(rand.NewPCG(o.Seed, 0))}
	ip := net.ParseIP(o.Media)
	var err error
	for range 50 {
		if m.conn, err = o.listen(ip, 0); err != nil {
			return nil, fmt.Errorf("siptest: %w", err)
		}
		port := m.conn.LocalAddr().(*net.UDPAddr).Port
		if port%2 == 0 {
			if m.rtcp, err = o.listen(ip, port+1); err == nil {
				break
			}
		}
		_ = m.conn.Close()
	}
	if m.rtcp == nil {
		return nil, errors.New("siptest: no pair of ports")
	}
	m.wg.Go(m.read)
	m.wg.Go(m.readRTCP)
	return m, nil
}

func (m *media) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	clock.remove(m)
	_ = m.conn.Close()
	_ = m.rtcp.Close()
	m.wg.Wait()
}

// start begins to listen to the time, and to speak.
func (m *media) start() {
	m.mu.Lock()
	if m.closed || m.speaking {
		m.mu.Unlock()
		return
	}
	m.speaking = true
	m.mu.Unlock()
	clock.add(m)
}

// description writes a session description with the given codecs.
func (m *media) description(names []string, pts map[string]uint8, events map[int]uint8, direction string) []byte {
	m.version++
	addr := m.conn.LocalAddr().(*net.UDPAddr)
	ver := "IP4"
	if addr.IP.To4() == nil {
		ver = "IP6"
	}
	var list, attrs strings.Builder
	clocks := map[int]bool{}
	for _, n := range names {
		f := formats[n]
		fmt.Fprintf(&list, " %d", pts[n])
		fmt.Fprintf(&attrs, "a=rtpmap:%d %s\r\n", pts[n], f.rtpmap)
		if f.fmtp != "" {
			fmt.Fprintf(&attrs, "a=fmtp:%d %s\r\n", pts[n], f.fmtp)
		}
		clocks[f.clock] = true
	}
	if m.o.ComfortNoise && clocks[8000] {
		list.WriteString(" 13")
		attrs.WriteString("a=rtpmap:13 CN/8000\r\n")
	}
	for _, c := range []int{8000, 48000} {
		if pt := events[c]; pt != 0 && clocks[c] && !m.o.NoEvents {
			fmt.Fprintf(&list, " %d", pt)
			fmt.Fprintf(&attrs, "a=rtpmap:%d telephone-event/%d\r\na=fmtp:%d 0-15\r\n", pt, c, pt)
		}
	}
	proto, crypto := m.srtp.describe(m.o)
	attrs.WriteString(crypto)
	return fmt.Appendf(nil, "v=0\r\no=phone %d %d IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\nm=audio %d %s%s\r\n%s%sa=%s\r\n",
		m.ssrc, m.version, ver, addr.IP, ver, addr.IP, addr.Port, proto, list.String(), attrs.String(), m.packetTime(), direction)
}

// packetTime is the attribute of how much audio we want in a packet.
func (m *media) packetTime() string {
	switch {
	case m.o.MaxPtime > 0:
		return fmt.Sprintf("a=maxptime:%d\r\n", m.o.MaxPtime.Milliseconds())
	case m.o.MaxPtime < 0:
		return ""
	}
	return fmt.Sprintf("a=ptime:%d\r\n", m.o.Ptime.Milliseconds())
}

func (m *media) offer(direction string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	pts := map[string]uint8{}
	for _, n := range m.o.Codecs {
		pts[n] = formats[n].pt
	}
	if m.name != "" {
		pts[m.name] = m.sendPT
	}
	m.send = direction == "sendrecv" || direction == "sendonly"
	return m.description(m.o.Codecs, pts, map[int]uint8{8000: 101, 48000: 110}, direction)
}

// remoteSDP is what the phone needs of the peer's description.
type remoteSDP struct {
	addr      netip.AddrPort
	pts       []uint8
	maps      map[uint8]string // lower case "pcmu/8000"
	direction string
	proto     string
	crypto    []string
}

func parseSDP(b []byte) (remoteSDP, error) {
	r := remoteSDP{maps: map[uint8]string{0: "pcmu/8000", 8: "pcma/8000", 9: "g722/8000"}, direction: "sendrecv"}
	var session, media string
	port, in := 0, 0 // in: 0 session, 1 our audio line, 2 another
	for _, l := range strings.Split(string(b), "\n") {
		l = strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(l, "m="):
			if strings.HasPrefix(l, "m=audio ") && port == 0 {
				f := strings.Fields(l)
				if len(f) < 4 {
					return r, fmt.Errorf("media line %q", l)
				}
				if _, err := fmt.Sscan(f[1], &port); err != nil {
					return r, err
				}
				for _, s := range f[3:] {
					var pt uint8
					if _, err := fmt.Sscan(s, &pt); err != nil {
						return r, err
					}
					r.pts = append(r.pts, pt)
				}
				in, r.proto = 1, f[2]
			} else {
				in = 2
			}
		case strings.HasPrefix(l, "c=") && in < 2:
			f := strings.Fields(l)
			if in == 0 {
				session = f[len(f)-1]
			} else {
				media = f[len(f)-1]
			}
		case strings.HasPrefix(l, "a=rtpmap:") && in == 1:
			var pt uint8
			var name string
			if _, err := fmt.Sscanf(l, "a=rtpmap:%d %s", &pt, &name); err == nil {
				r.maps[pt] = strings.ToLower(name)
			}
		case strings.HasPrefix(l, "a=crypto:") && in == 1:
			r.crypto = append(r.crypto, strings.TrimPrefix(l, "a=crypto:"))
		case in < 2 && (l == "a=sendrecv" || l == "a=sendonly" || l == "a=recvonly" || l == "a=inactive"):
			r.direction = l[2:]
		}
	}
	if media == "" {
		media = session
	}
	ip, err := netip.ParseAddr(media)
	if err != nil || port == 0 {
		return r, fmt.Errorf("no address for audio (%v)", err)
	}
	r.addr = netip.AddrPortFrom(ip, uint16(port))
	return r, nil
}

// choose takes the first format of the peer's list that we have. m.mu is held.
func (m *media) choose(r remoteSDP) error {
	if err := m.srtp.agree(m.o, r); err != nil {
		return err
	}
	for _, pt := range r.pts {
		for _, n := range m.o.Codecs {
			f := formats[n]
			if strings.ToLower(f.rtpmap) != r.maps[pt] {
				continue
			}
			if m.name != n {
				var err error
				if m.enc, err = f.newCodec(); err != nil {
					return err
				}
				if m.dec, err = f.newCodec(); err != nil {
					return err
				}
				if m.name != "" {
					m.tape, m.anchored = nil, false // another rate
				}
				m.name, m.f = n, f
				m.gen = tone.NewGenerator(m.freq, f.rate, amplitude)
			}
			if m.began.IsZero() {
				m.began = time.Now()
			}
			m.sendPT, m.remote = pt, r.addr
			m.eventPT, m.comfort = 0, false
			for _, e := range r.pts {
				m.comfort = m.comfort || m.o.ComfortNoise && e == comfortPT
				if m.o.NoEvents {
					continue
				}
				if r.maps[e] == fmt.Sprintf("telephone-event/%d", f.clock) {
					m.eventPT = e
				}
			}
			return nil
		}
	}
	return fmt.Errorf("no codec of ours in %v", r.pts)
}

// accept takes the answer to our offer.
func (m *media) accept(b []byte) error {
	r, err := parseSDP(b)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.choose(r); err != nil {
		return err
	}
	m.send = m.send && (r.direction == "sendrecv" || r.direction == "recvonly")
	m.recvPT = map[uint8]bool{m.f.pt: true, m.sendPT: true}
	m.recvEvent = m.f.eventPT
	return nil
}

// answer answers the peer's offer.
func (m *media) answer(b []byte, direction string) ([]byte, error) {
	r, err := parseSDP(b)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.choose(r); err != nil {
		return nil, err
	}
	switch r.direction {
	case "sendonly":
		direction = "recvonly"
	case "recvonly":
		direction = "sendonly"
	case "inactive":
		direction = "inactive"
	}
	m.send = direction == "sendrecv" || direction == "sendonly"
	m.recvPT = map[uint8]bool{m.sendPT: true}
	m.recvEvent = m.eventPT
	return m.description([]string{m.name}, map[string]uint8{m.name: m.sendPT}, map[int]uint8{m.f.clock: m.eventPT}, direction), nil
}

// say replaces what is said.
func (m *media) say(freq int, pcm []int16, loop bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.freq, m.pcm, m.loop, m.noise = freq, append([]int16(nil), pcm...), nil, 0
	if loop {
		m.loop = m.pcm
	}
	if m.name != "" {
		m.gen = tone.NewGenerator(freq, m.f.rate, amplitude)
	}
}

func (m *media) dtmf(digits string) (<-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.eventPT == 0 {
		return nil, errors.New("siptest: telephone-event was not agreed on")
	}
	done := make(chan struct{})
	for _, d := range strings.ToUpper(digits) {
		i := strings.IndexRune("0123456789*#ABCD", d)
		if i < 0 {
			return nil, fmt.Errorf("siptest: no digit %q", d)
		}
		m.digits = append(m.digits, event{code: byte(i)})
		m.digitDone = append(m.digitDone, nil)
	}
	if len(m.digits) == 0 {
		close(done)
		return done, nil
	}
	m.digitDone[len(m.digitDone)-1] = done
	return done, nil
}

// tick speaks one frame.
func (m *media) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.name == "" || !m.remote.IsValid() {
		return
	}
	n := m.f.rate / 50
	step := uint32(m.f.clock / 50)
	defer func() { m.ts += step }()
	if m.ticks++; m.o.Reports && m.ticks%25 == 0 {
		m.report()
	}
	if m.send && m.noise != 0 {
		if m.ticks%10 == 0 {
			m.packet(comfortPT, false, m.ts, []byte{m.noise})
		}
		m.pending, m.marker = m.pending[:0], true
		return
	}
	if !m.send {
		m.pending, m.marker = m.pending[:0], true
		return
	}
	if len(m.digits) > 0 && m.digit(step) {
		m.pending, m.marker = m.pending[:0], true
		return
	}
	frame := make([]int16, n)
	k := copy(frame, m.pcm)
	if m.pcm = m.pcm[k:]; len(m.pcm) == 0 {
		m.pcm = m.loop
	}
	if k == 0 && m.freq > 0 {
		m.gen.Read(frame)
	}
	m.pending = append(m.pending, frame...)
	want := n * int(m.o.Ptime/frameTime)
	if len(m.pending) < want {
		return
	}
	payload, err := m.enc.encode(m.pending)
	m.pending = m.pending[:0]
	if err != nil {
		return
	}
	back := uint32(m.o.Ptime/frameTime-1) * step
	m.packet(m.sendPT, m.marker, m.ts-back, payload)
	m.marker = false
}

// digit sends a frame of the first digit, and reports whether audio waits.
func (m *media) digit(step uint32) bool {
	const on, off = 5, 5 // frames
	d := &m.digits[0]
	if d.frame == 0 {
		d.ts = m.ts
	}
	d.frame++
	pkt := func(end bool, frames int) []byte {
		p := []byte{d.code, 10, 0, 0}
		if end {
			p[1] |= 0x80
		}
		binary.BigEndian.PutUint16(p[2:], uint16(uint32(frames)*step))
		return p
	}
	switch {
	case d.frame <= on:
		m.packet(m.eventPT, d.frame == 1, d.ts, pkt(false, d.frame))
	case d.frame == on+1:
		for range 3 { // RFC 4733 §2.5.1.4
			m.packet(m.eventPT, false, d.ts, pkt(true, on))
		}
	case d.frame > on+off:
		if c := m.digitDone[0]; c != nil {
			close(c)
		}
		m.digits, m.digitDone = m.digits[1:], m.digitDone[1:]
		return false
	}
	return d.frame <= on+1
}

// packet sends one, or loses it, or sends it late.
func (m *media) packet(pt uint8, marker bool, ts uint32, payload []byte) {
	b := make([]byte, 12, 12+len(payload))
	b[0], b[1] = 0x80, pt
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], m.seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], m.ssrc)
	b = append(b, payload...)
	m.seq++
	m.sent++
	m.octets += uint64(len(payload))
	if m.o.Loss > 0 && m.rng.Float64() < m.o.Loss {
		return
	}
	to := m.remote
	if b = m.srtp.encrypt(b, false); b == nil {
		return
	}
	if m.o.Jitter > 0 {
		time.AfterFunc(time.Duration(m.rng.Int64N(int64(m.o.Jitter))), func() { _, _ = m.conn.WriteToUDPAddrPort(b, to) })
		return
	}
	_, _ = m.conn.WriteToUDPAddrPort(b, to)
}

func (m *media) readRTCP() {
	buf := make([]byte, 2048)
	for {
		n, _, err := m.rtcp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n >= 8 {
			m.mu.Lock()
			if b := m.srtp.decrypt(buf[:n], true); b != nil {
				m.rtcps++
				m.reports.take(b)
			}
			m.mu.Unlock()
		}
	}
}

func (m *media) read() {
	buf := make([]byte, 2048)
	for {
		n, _, err := m.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			m.take(buf[:n])
		}
	}
}

// take hears one packet.
func (m *media) take(b []byte) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	pt := b[1] & 0x7f
	isRTCP := pt >= 72 && pt <= 76
	if b = m.srtp.decrypt(b, isRTCP); b == nil {
		return
	}
	if isRTCP { // on the same port (RFC 5761)
		m.rtcps++
		m.reports.take(b)
		return
	}
	seq, ts, ssrc := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	payload := b[12:]
	if skip := 4 * int(b[0]&0xf); skip <= len(payload) {
		payload = payload[skip:]
	}
	if b[0]&0x10 != 0 && len(payload) >= 4 {
		skip := 4 + 4*int(binary.BigEndian.Uint16(payload[2:]))
		payload = payload[min(skip, len(payload)):]
	}
	if m.name == "" {
		return
	}
	if pt == comfortPT && m.comfort {
		m.comforts++
		m.lastSeq = seq
		m.lastAt = time.Now()
		return
	}
	if pt == m.recvEvent && pt != 0 {
		m.lastSeq = seq
		if len(payload) >= 4 && ts != m.lastDig && payload[0] < 16 {
			m.lastDig = ts
			m.heardDig = append(m.heardDig, "0123456789*#ABCD"[payload[0]])
		}
		return
	}
	if !m.recvPT[pt] {
		return
	}
	pcm, err := m.dec.decode(payload)
	if err != nil {
		return
	}
	now := time.Now()
	scale := m.f.rate / m.f.clock
	at := m.anchorAt + int(int32(ts-m.anchorTS))*scale
	here := int(now.Sub(m.began).Seconds() * float64(m.f.rate))
	if !m.anchored || ssrc != m.peerSSRC || at-here > 10*m.f.rate || here-at > 10*m.f.rate {
		m.anchored, m.peerSSRC, m.anchorTS, m.anchorAt = true, ssrc, ts, max(here, m.base+len(m.tape))
		at = m.anchorAt
	} else if gap := int16(seq - m.lastSeq); gap > 1 {
		m.lost += uint64(gap - 1)
	}
	m.lastSeq = seq
	m.received++
	m.samples += uint64(len(pcm))
	m.lastAt = now
	m.write(at-m.base, pcm)
	close(m.news)
	m.news = make(chan struct{})
}

// write puts pcm on the tape at an index, and cuts the front off when the
// tape gets long.
func (m *media) write(at int, pcm []int16) {
	if at < 0 {
		return
	}
	if need := at + len(pcm); need > len(m.tape) {
		m.tape = append(m.tape, make([]int16, need-len(m.tape))...)
	}
	copy(m.tape[at:], pcm)
	limit := int(maxHeard.Seconds()) * m.f.rate
	if over := len(m.tape) - limit; over > limit/10 {
		m.tape = append([]int16(nil), m.tape[over:]...)
		m.base += over
	}
}

func (m *media) hear(ctx context.Context, over <-chan struct{}, there func(pcm []int16, rate int, freqs ...int) bool, freqs ...int) error {
	const window = 200 * time.Millisecond
	var start uint64
	for first := true; ; first = false {
		m.mu.Lock()
		n := int(window.Seconds() * float64(m.f.rate))
		if first {
			start = m.samples
		}
		var tail []int16
		if fresh := int(m.samples - start); n > 0 && fresh >= n && len(m.tape) >= n {
			tail = append(tail, m.tape[len(m.tape)-n:]...)
		}
		rate, news, received := m.f.rate, m.news, m.received
		m.mu.Unlock()
		if len(tail) > 0 && there(tail, rate, freqs...) {
			return nil
		}
		select {
		case <-news:
		case <-over:
			return fmt.Errorf("siptest: the call ended before %d Hz was heard", freqs)
		case <-ctx.Done():
			var shares []float64
			for _, f := range freqs {
				shares = append(shares, tone.Level(tail, max(1, rate), f))
			}
			return fmt.Errorf("siptest: %d Hz not heard (%d packets; share of it at the end %.2f, loudness %.0f dBFS): %w",
				freqs, received, shares, tone.RMS(tail), ctx.Err())
		}
	}
}

func (m *media) heard() []int16 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]int16(nil), m.tape...)
}

func (m *media) rate() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.f.rate
}

func (m *media) codecName() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.name
}

func (m *media) stats() RTPStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return RTPStats{Sent: m.sent, Received: m.received, RTCP: m.rtcps, Lost: m.lost, Comfort: m.comforts, LastReceived: m.lastAt}
}

func (m *media) info(ctype string, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inbox = append(m.inbox, Info{ctype, body})
}

func (m *media) infos() []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Info(nil), m.inbox...)
}

func (m *media) digitsHeard() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.heardDig)
}
