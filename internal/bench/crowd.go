package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/client"
)

// A crowd is one participant in many rooms, by signalling only: it lets Jicofo
// invite it and never accepts, so that the rooms are populated at no cost.
type crowd struct {
	c  *client.Client
	mu sync.Mutex
	in map[string]chan struct{} // rooms, closed when it is in
}

func joinCrowd(ctx context.Context, s *jitsitest.Shard, rooms []string) (*crowd, error) {
	c := &crowd{in: map[string]chan struct{}{}}
	var err error
	c.c, err = client.Dial(ctx, client.Options{URL: s.BOSHURL(), Domain: s.Domain(), Room: rooms[0], Handler: c.handle})
	if err != nil {
		return nil, err
	}
	for _, room := range rooms {
		if err := c.join(ctx, s, room); err != nil {
			c.c.Close()
			return nil, fmt.Errorf("join %s: %w", room, err)
		}
	}
	return c, nil
}

const crowdNick = "somebody"

func (c *crowd) join(ctx context.Context, s *jitsitest.Shard, room string) error {
	jid := room + "@" + s.MUC()
	in := make(chan struct{})
	c.mu.Lock()
	c.in[jid] = in
	c.mu.Unlock()
	r, err := c.c.Request(ctx, "set", "focus."+s.Domain(),
		fmt.Sprintf("<conference xmlns='http://jitsi.org/protocol/focus' room='%s' machine-uid='%x'/>", jid, rand.Uint64()))
	if err != nil {
		return err
	}
	if !strings.Contains(r.XML, "ready='true'") {
		return fmt.Errorf("conference request: %s", r.XML)
	}
	err = c.c.Send(fmt.Sprintf("<presence xmlns='jabber:client' to='%s/%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>", jid, crowdNick))
	if err != nil {
		return err
	}
	select {
	case <-in:
		return nil
	case <-c.c.Done():
		return c.c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *crowd) handle(s client.Stanza) {
	switch {
	case s.Name == "presence" && s.Type == "":
		room, nick, _ := strings.Cut(s.From, "/")
		c.mu.Lock()
		defer c.mu.Unlock()
		if in := c.in[room]; in != nil && nick == crowdNick {
			close(in)
			c.in[room] = nil
		}
	case s.Name == "iq" && (s.Type == "get" || s.Type == "set"):
		answer := ""
		if strings.Contains(s.XML, "http://jabber.org/protocol/disco#info") {
			answer = "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='web' name='jitsi-meet'/>" +
				"<feature var='urn:xmpp:jingle:1'/><feature var='urn:xmpp:jingle:apps:rtp:audio'/><feature var='urn:xmpp:jingle:transports:ice-udp:1'/>" +
				"<feature var='urn:ietf:rfc:5761'/><feature var='urn:ietf:rfc:5888'/></query>"
		}
		c.c.Send(fmt.Sprintf("<iq xmlns='jabber:client' type='result' id='%s' to='%s'>%s</iq>", escape(s.ID), escape(s.From), answer))
	}
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

func (c *crowd) close() { c.c.Close() }
