package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	floodCalls   = 20
	floodRate    = 2000 // INVITEs a second
	floodSources = 200  // addresses they come from
	floodTime    = 15 * time.Second
)

// heardPackets is which packets of a stream arrived.
type heardPackets struct {
	mu   sync.Mutex
	seqs []uint16 // in the order of arrival
}

func (h *heardPackets) take(p []byte, _ time.Time) {
	if len(p) < 12 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seqs = append(h.seqs, uint16(p[2])<<8|uint16(p[3]))
}

// lost counts the sequence numbers between the first and the last that did not
// arrive, and all of them.
func (h *heardPackets) lost() (lost, all int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seqs) == 0 {
		return 0, 0
	}
	// A run is far shorter than half a turn of the numbers.
	base := h.seqs[0]
	var at []int
	for _, s := range h.seqs {
		at = append(at, int(int16(s-base)))
	}
	slices.Sort(at)
	all = at[len(at)-1] - at[0] + 1
	return all - len(slices.Compact(at)), all
}

// benchFlood has strangers send INVITEs while calls talk, and counts the calls'
// packets that got lost: those to phones and bridge by their numbers, as they
// arrive there, and those to the gateway by the kernel's count of what found no
// place in the sockets of its calls.
func benchFlood(ctx context.Context) error {
	names := rooms(floodCalls)
	w, err := newWorld(ctx, worldOptions{rooms: names})
	if err != nil {
		return err
	}
	defer w.close()
	talks, err := w.callAll(ctx, names)
	if err != nil {
		return err
	}
	load, err := newLoad(parties(talks), 1)
	if err != nil {
		return err
	}
	var home, bridge []*heardPackets
	for _, t := range talks {
		h, b := &heardPackets{}, &heardPackets{}
		home, bridge = append(home, h), append(bridge, b)
		if err := t.party.rtp.stamp(); err != nil {
			return fmt.Errorf("timestamps of the kernel: %w", err)
		}
		t.party.take = h.take
		t.endpoint.Tap(b.take)
	}
	load.start()
	time.Sleep(cpuWarmup)
	quiet, err := watch(w.serve, floodCalls, floodTime/3, counter(talks, load))
	if err != nil {
		return err
	}
	before, err := w.metrics()
	if err != nil {
		return err
	}
	gateway := w.serve.cmd.Process.Pid
	_, signalling, err := net.SplitHostPort(w.phones.gateway.String())
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(signalling, 10, 16) // whose packets may be refused unread
	if err != nil {
		return err
	}
	missed, _, err := udpDrops(gateway, uint16(port))
	if err != nil {
		return err
	}
	strangers, err := flood(ctx, w.phones.gateway.String())
	if err != nil {
		return err
	}
	busy, err := watch(w.serve, floodCalls, floodTime, counter(talks, load))
	sent, answers := strangers()
	if err != nil {
		return err
	}
	after, err := w.metrics()
	if err != nil {
		return err
	}
	load.end()
	missedNow, sockets, err := udpDrops(gateway, uint16(port))
	if err != nil {
		return err
	}
	if sockets < 2*floodCalls {
		return fmt.Errorf("the gateway has %d sockets for %d calls", sockets, floodCalls)
	}
	note("%d INVITEs of strangers from %d addresses, %.0f a second; %d answers%s", sent, floodSources,
		float64(sent)/floodTime.Seconds(), answers, disturbed(busy.others))
	var up, down, upAll, downAll int
	for i := range talks {
		talks[i].endpoint.Tap(nil)
		lost, all := bridge[i].lost()
		up, upAll = up+lost, upAll+all
		lost, all = home[i].lost()
		down, downAll = down+lost, downAll+all
	}
	if upAll == 0 || downAll == 0 {
		return fmt.Errorf("%d and %d packets came", upAll, downAll)
	}
	figure("flood.lost_to_bridge", float64(up), fmt.Sprintf("packets of %d", upAll))
	figure("flood.lost_to_phone", float64(down), fmt.Sprintf("packets of %d", downAll))
	figure("flood.lost_to_gateway", float64(missedNow-missed), fmt.Sprintf("packets at %d sockets", sockets))
	figureFloor("flood.packets", busy.packets, "packets/s/call", quiet.packets)
	figure("flood.calls", after["brewline_calls"], "calls still there")
	figureFloor("flood.cpu", busy.millicores*floodCalls, "millicores", quiet.millicores*floodCalls)
	for name, v := range after {
		if d := v - before[name]; d != 0 && floodMetrics[name] {
			note("%s: +%.0f", name, d)
		}
	}
	h, err := w.holdings()
	if err != nil {
		return err
	}
	figure("flood.goroutines", float64(h.Goroutines), "goroutines")
	for _, t := range talks {
		if err := t.hangup(ctx); err != nil {
			return err
		}
	}
	return nil
}

// floodMetrics tell what became of the flood.
var floodMetrics = map[string]bool{"brewline_sip_messages_total": true, "brewline_sip_banned_addresses": true}

// flood sends INVITEs from many addresses until stopped, and then tells how
// many, and how many answers there were.
func flood(ctx context.Context, to string) (stop func() (sent, answers int), err error) {
	ctx, cancel := context.WithCancel(ctx)
	gateway, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		cancel()
		return nil, err
	}
	var conns []*net.UDPConn
	end := func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for i := range floodSources {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 66, byte(i/250), byte(1+i%250))})
		if err != nil {
			end()
			cancel()
			return nil, err
		}
		conns = append(conns, c)
	}
	sent, answers := 0, 0
	var done sync.WaitGroup
	done.Go(func() {
		for began := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
			for due := int(time.Since(began).Seconds() * floodRate); sent < due; sent++ {
				c := conns[sent%len(conns)]
				c.WriteToUDP(strangerInvite(c.LocalAddr().String(), to, sent), gateway)
			}
		}
	})
	return func() (int, int) {
		cancel()
		done.Wait()
		buf := make([]byte, 2048)
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			for {
				if _, err := c.Read(buf); err != nil {
					break
				}
				answers++
			}
		}
		end()
		return sent, answers
	}, nil
}

// strangerInvite is a call of somebody who is nobody's phone.
func strangerInvite(from, to string, n int) []byte {
	sdp := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
	return fmt.Appendf(nil, "INVITE sip:00%d@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKs%d;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:100@%s>;tag=s%d\r\nTo: <sip:00%d@%s>\r\nCall-ID: stranger%d\r\nCSeq: 1 INVITE\r\nContact: <sip:100@%s>\r\n"+
		"X-Room-Name: room0\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		n, to, from, n, to, n, n, to, n, from, len(sdp), sdp)
}
