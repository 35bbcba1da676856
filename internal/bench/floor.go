package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/srtp/v3"

	"brewline/media/codec"
)

// The floor is the least that any gateway must do for a call: one blocked
// reader per socket, one pacer for all, libopus as the gateway sets it at the
// rate of G.711, and SRTP. It has no signalling, no jitter buffer, no mixing.

const (
	packetTime = 20 * time.Millisecond
	pcmPerTick = 160 // samples at 8 kHz
)

// floorSetup is what the floor tells its parent: where to send.
type floorSetup struct {
	Phones, Bridges []int // UDP ports on loopback, by call
}

// floorKey encrypts everything in both directions, with AES-128-GCM.
var floorKey, floorSalt = make([]byte, 16), make([]byte, 12)

// latest is the newest packet of a socket, taken by the pacer.
type latest struct {
	mu   sync.Mutex
	buf  [1500]byte
	n    int
	from netip.AddrPort
}

type floorCall struct {
	phone, bridge       *net.UDPConn
	fromPhone, fromConf latest
	enc                 codec.Encoder
	opusEnc             *codec.OpusEncoder
	opusDec             *codec.OpusDecoder
	g711Dec             codec.Decoder
	out                 *srtp.Context
	seqPhone, seqConf   uint16
	ts                  uint32
}

func runFloor(calls, complexity int) error {
	var setup floorSetup
	var all []*floorCall
	for range calls {
		c, err := newFloorCall(complexity)
		if err != nil {
			return err
		}
		all = append(all, c)
		setup.Phones = append(setup.Phones, c.phone.LocalAddr().(*net.UDPAddr).Port)
		setup.Bridges = append(setup.Bridges, c.bridge.LocalAddr().(*net.UDPAddr).Port)
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
		case <-tick.C:
			for _, c := range all {
				if err := c.tick(pcm, scratch); err != nil {
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
	var err error
	loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if c.phone, err = net.ListenUDP("udp4", loopback); err != nil {
		return nil, err
	}
	if c.bridge, err = net.ListenUDP("udp4", loopback); err != nil {
		return nil, err
	}
	g711, _ := codec.ByName("pcmu")
	if c.enc, err = g711.NewEncoder(codec.OpusOptions{}); err != nil {
		return nil, err
	}
	if c.g711Dec, err = g711.NewDecoder(); err != nil {
		return nil, err
	}
	if c.opusEnc, err = codec.NewOpusEncoder(8000, codec.OpusOptions{Complexity: complexity}); err != nil {
		return nil, err
	}
	if c.opusDec, err = codec.NewOpusDecoder(8000); err != nil {
		return nil, err
	}
	in, err := srtp.CreateContext(floorKey, floorSalt, srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		return nil, err
	}
	if c.out, err = srtp.CreateContext(floorKey, floorSalt, srtp.ProtectionProfileAeadAes128Gcm); err != nil {
		return nil, err
	}
	go c.fromPhone.read(c.phone, nil)
	go c.fromConf.read(c.bridge, in)
	return c, nil
}

// read keeps the newest packet, decrypted.
func (l *latest) read(conn *net.UDPConn, in *srtp.Context) {
	var raw, plain [1500]byte
	for {
		n, from, err := conn.ReadFromUDPAddrPort(raw[:])
		if err != nil {
			return
		}
		p := raw[:n]
		if in != nil {
			if p, err = in.DecryptRTP(plain[:0], p, nil); err != nil {
				continue
			}
		}
		l.mu.Lock()
		l.n = copy(l.buf[:], p)
		l.from = from
		l.mu.Unlock()
	}
}

// take copies the newest packet's payload into dst.
func (l *latest) take(dst []byte, header int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n <= header {
		return nil
	}
	n := copy(dst, l.buf[header:l.n])
	l.n = 0
	return dst[:n]
}

func (c *floorCall) tick(pcm []int16, scratch []byte) error {
	c.ts += pcmPerTick
	var buf [1500]byte
	if p := c.fromConf.take(scratch, opusHeader); p != nil {
		n, err := c.opusDec.Decode(pcm, p)
		if err != nil {
			return fmt.Errorf("decode Opus: %w", err)
		}
		h := rtpHeader(buf[:], 0, c.seqPhone, c.ts)
		c.seqPhone++
		m, err := c.enc.Encode(buf[h:], pcm[:n])
		if err != nil {
			return err
		}
		if to := c.fromPhone.peer(); to.IsValid() {
			if _, err := c.phone.WriteToUDPAddrPort(buf[:h+m], to); err != nil {
				return err
			}
		}
	}
	if p := c.fromPhone.take(scratch, 12); p != nil {
		n, err := c.g711Dec.Decode(pcm, p)
		if err != nil {
			return err
		}
		h := rtpHeader(buf[:], 111, c.seqConf, c.ts*6)
		c.seqConf++
		m, err := c.opusEnc.Encode(buf[h:len(buf)-32], pcm[:n])
		if err != nil {
			return fmt.Errorf("encode Opus: %w", err)
		}
		sealed, err := c.out.EncryptRTP(scratch[:0], buf[:h+m], nil)
		if err != nil {
			return err
		}
		if to := c.fromConf.peer(); to.IsValid() {
			if _, err := c.bridge.WriteToUDPAddrPort(sealed, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// peer is where the last packet came from.
func (l *latest) peer() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.from
}

// opusHeader is the RTP header with the audio level of a videobridge's packet.
const opusHeader = 12 + 8

func rtpHeader(b []byte, pt uint8, seq uint16, ts uint32) int {
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], 0x5eed)
	return 12
}
