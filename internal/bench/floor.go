package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"brewline/media/codec"
)

// The floor is the least that any gateway must do for a call: one blocked
// reader per socket, one pacer for all, libopus as the gateway sets it at the
// rate of G.711, SRTP, and RTCP as often. It has no signalling, no jitter
// buffer, no mixing.

const (
	packetTime = 20 * time.Millisecond
	pcmPerTick = 160 // samples at 8 kHz
	// floorLoss is what the gateway tells libopus to expect, percent.
	floorLoss = 5
	// The gateway's reports are this far apart.
	reportMin, reportMax = time.Second, 2500 * time.Millisecond
	// opusHeader is an RTP header with audio level.
	opusHeader = 12 + 8
)

// floorSetup is what the floor tells its parent: where to send.
type floorSetup struct {
	Phones, Reports, Bridges []uint16 // UDP ports on loopback, by call
}

// floorKey encrypts everything in both directions, with AES-128-GCM.
var floorKey, floorSalt = make([]byte, 16), make([]byte, 12)

func floorSRTP() (*srtp.Context, error) {
	return srtp.CreateContext(floorKey, floorSalt, srtp.ProtectionProfileAeadAes128Gcm)
}

// inbox holds the few packets of a socket that came since the last tick.
type inbox struct {
	mu   sync.Mutex
	buf  [4][512]byte
	n    [4]int
	r, w int
	from netip.AddrPort
}

type floorCall struct {
	phone, report, bridge       *net.UDPConn
	fromPhone, toReport, fromJB inbox
	enc                         codec.Encoder
	dec                         codec.Decoder
	opusEnc                     *codec.OpusEncoder
	opusDec                     *codec.OpusDecoder
	out                         *srtp.Context
	header                      rtp.Header
	seqPhone, seqJB             uint16
	ts, ssrc                    uint32
	reportAt                    time.Time
}

// runFloor is the floor's process.
func runFloor(calls, complexity int) error {
	var setup floorSetup
	var all []*floorCall
	for i := range calls {
		c, err := newFloorCall(complexity)
		if err != nil {
			return err
		}
		c.ssrc = uint32(i + 1)
		all = append(all, c)
		port := func(c *net.UDPConn) uint16 { return uint16(c.LocalAddr().(*net.UDPAddr).Port) }
		setup.Phones = append(setup.Phones, port(c.phone))
		setup.Reports = append(setup.Reports, port(c.report))
		setup.Bridges = append(setup.Bridges, port(c.bridge))
	}
	if err := json.NewEncoder(os.Stdout).Encode(setup); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the parent is done
		close(ended)
	}()
	tick := time.NewTicker(packetTime)
	defer tick.Stop()
	pcm, scratch := make([]int16, 960), make([]byte, 1500)
	for {
		select {
		case now := <-tick.C:
			for _, c := range all {
				if err := c.tick(now, pcm, scratch); err != nil {
					return err
				}
			}
		case <-ended:
			return nil
		}
	}
}

func newFloorCall(complexity int) (*floorCall, error) {
	c := &floorCall{}
	for _, s := range []**net.UDPConn{&c.phone, &c.report, &c.bridge} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback[:]})
		if err != nil {
			return nil, err
		}
		*s = conn
	}
	g711, _ := codec.ByName("pcmu")
	var err error
	if c.enc, err = g711.NewEncoder(codec.OpusOptions{}); err != nil {
		return nil, err
	}
	if c.dec, err = g711.NewDecoder(); err != nil {
		return nil, err
	}
	if c.opusEnc, err = codec.NewOpusEncoder(8000, codec.OpusOptions{Complexity: complexity, Loss: floorLoss}); err != nil {
		return nil, err
	}
	if c.opusDec, err = codec.NewOpusDecoder(8000); err != nil {
		return nil, err
	}
	in, err := floorSRTP()
	if err != nil {
		return nil, err
	}
	if c.out, err = floorSRTP(); err != nil {
		return nil, err
	}
	go c.fromPhone.read(c.phone, nil)
	go c.toReport.read(c.report, nil)
	go c.fromJB.read(c.bridge, in)
	return c, nil
}

// read keeps what comes, decrypted.
func (l *inbox) read(conn *net.UDPConn, in *srtp.Context) {
	var raw, plain [1500]byte
	var header rtp.Header
	for {
		n, from, err := conn.ReadFromUDPAddrPort(raw[:])
		if err != nil {
			return
		}
		p := raw[:n]
		if in != nil {
			if isRTCP(p) {
				in.DecryptRTCP(plain[:0], p, nil)
				continue
			}
			if p, err = in.DecryptRTP(plain[:0], p, &header); err != nil {
				continue
			}
		}
		l.mu.Lock()
		if l.from = from; l.w-l.r < len(l.buf) {
			i := l.w % len(l.buf)
			l.n[i] = copy(l.buf[i][:], p)
			l.w++
		}
		l.mu.Unlock()
	}
}

func isRTCP(p []byte) bool { return len(p) > 1 && p[1] >= 192 && p[1] <= 223 }

// take copies the oldest packet's payload into dst, nil if there is none.
func (l *inbox) take(dst []byte, header int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == l.w {
		return nil
	}
	i := l.r % len(l.buf)
	l.r++
	return dst[:copy(dst, l.buf[i][header:max(l.n[i], header)])]
}

// peer is where the last packet came from.
func (l *inbox) peer() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.from
}

func (c *floorCall) tick(now time.Time, pcm []int16, scratch []byte) error {
	c.ts += pcmPerTick
	var buf [1500]byte
	for p := c.fromJB.take(scratch, opusHeader); p != nil; p = c.fromJB.take(scratch, opusHeader) {
		n, err := c.opusDec.Decode(pcm, p)
		if err != nil {
			return fmt.Errorf("decode Opus: %w", err)
		}
		h := rtpHeader(buf[:], 0, c.seqPhone, c.ts, c.ssrc)
		c.seqPhone++
		m, err := c.enc.Encode(buf[h:], pcm[:n])
		if err != nil {
			return err
		}
		if to := c.fromPhone.peer(); to.IsValid() {
			c.phone.WriteToUDPAddrPort(buf[:h+m], to)
		}
	}
	for p := c.fromPhone.take(scratch, 12); p != nil; p = c.fromPhone.take(scratch, 12) {
		n, err := c.dec.Decode(pcm, p)
		if err != nil {
			return err
		}
		h := rtpHeader(buf[:], opusPT, c.seqJB, c.ts*6, c.ssrc)
		c.seqJB++
		buf[0] |= 0x10
		h += copy(buf[h:], []byte{0xBE, 0xDE, 0, 1, levelID << 4, loudness(pcm[:n]), 0, 0})
		m, err := c.opusEnc.Encode(buf[h:len(buf)-32], pcm[:n])
		if err != nil {
			return fmt.Errorf("encode Opus: %w", err)
		}
		sealed, err := c.out.EncryptRTP(scratch[:0], buf[:h+m], &c.header)
		if err != nil {
			return err
		}
		if to := c.fromJB.peer(); to.IsValid() {
			c.bridge.WriteToUDPAddrPort(sealed, to)
		}
	}
	if now.After(c.reportAt) {
		c.reportAt = now.Add(reportMin + rand.N(reportMax-reportMin))
		return c.reports(buf[:0], scratch)
	}
	return nil
}

// reports sends RTCP both ways.
func (c *floorCall) reports(buf, scratch []byte) error {
	p := receiverReport(buf, c.ssrc, 0)
	if to := c.toReport.peer(); to.IsValid() {
		c.report.WriteToUDPAddrPort(p, to)
	}
	sealed, err := c.out.EncryptRTCP(scratch[:0], p, nil)
	if err != nil {
		return err
	}
	if to := c.fromJB.peer(); to.IsValid() {
		c.bridge.WriteToUDPAddrPort(sealed, to)
	}
	return nil
}

func rtpHeader(b []byte, pt uint8, seq uint16, ts, ssrc uint32) int {
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return 12
}

// floorBridge is the generator's end of the floor's videobridge legs: one
// socket with a reader, as the simulated videobridge has.
type floorBridge struct {
	conn           *net.UDPConn
	out            *srtp.Context
	received, sent atomic.Uint64
	done           sync.WaitGroup
	sealed         []byte
}

func openFloorBridge() (*floorBridge, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback[:]})
	if err != nil {
		return nil, err
	}
	out, err := floorSRTP()
	if err != nil {
		conn.Close()
		return nil, err
	}
	b := &floorBridge{conn: conn, out: out, sealed: make([]byte, 0, 1500)}
	b.done.Go(func() {
		var buf [1500]byte
		for {
			if _, _, err := conn.ReadFromUDPAddrPort(buf[:]); err != nil {
				return
			}
			b.received.Add(1)
		}
	})
	return b, nil
}

func (b *floorBridge) close() {
	b.conn.Close()
	b.done.Wait()
}

func (b *floorBridge) send(sealed []byte, to netip.AddrPort) {
	b.sent.Add(1)
	b.conn.WriteToUDPAddrPort(sealed, to)
}

// floorParties are the parties that speak to a floor.
func floorParties(s floorSetup, b *floorBridge) ([]*party, error) {
	var all []*party
	for i := range s.Phones {
		to := netip.AddrPortFrom(netip.AddrFrom4(loopback), s.Bridges[i])
		p, err := newParty(s.Phones[i], s.Reports[i])
		if err != nil {
			return all, err
		}
		p.say = func(packet []byte) bool {
			sealed, err := b.out.EncryptRTP(b.sealed, packet, nil)
			if err == nil {
				b.send(sealed, to)
			}
			return err == nil
		}
		ssrc := uint32(i + 1)
		report := make([]byte, 0, 64)
		p.report = func() {
			if sealed, err := b.out.EncryptRTCP(b.sealed, receiverReport(report, ssrc, ssrc), nil); err == nil {
				b.send(sealed, to)
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// newParty is a phone whose RTP and RTCP go to these ports.
func newParty(rtp, rtcp uint16) (*party, error) {
	p := &party{}
	for _, s := range []struct {
		to   **socket
		port uint16
	}{{&p.rtp, rtp}, {&p.rtcp, rtcp}} {
		sock, err := openSocket()
		if err != nil {
			return nil, err
		}
		*s.to = sock
		if err := sock.connect(netip.AddrPortFrom(netip.AddrFrom4(loopback), s.port)); err != nil {
			return nil, err
		}
	}
	return p, nil
}
