package jicofo

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// component is a connection to a server as an external component (XEP-0114).
type component struct {
	conn   net.Conn
	dec    *xml.Decoder
	queue  chan string
	closed chan struct{} // no stanza is queued any more
	once   sync.Once
	done   sync.WaitGroup
	ended  chan struct{} // closed by the reader when nothing more comes
}

// sendQueue bounds the stanzas that wait for the server.
const sendQueue = 4096

// closeTimeout bounds the wait for the server's end of the stream.
const closeTimeout = time.Second

// dialComponent connects and authenticates.
func dialComponent(ctx context.Context, addr, name, secret string) (*component, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("component %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	c := &component{conn: conn, queue: make(chan string, sendQueue), closed: make(chan struct{}), ended: make(chan struct{})}
	err = c.open(name, secret)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("component %s: %w", name, err)
	}
	_ = conn.SetDeadline(time.Time{})
	c.done.Add(1)
	go c.write()
	return c, nil
}

// open is XEP-0114 §3.
func (c *component) open(name, secret string) error {
	_, err := fmt.Fprintf(c.conn, "<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='%s' to='%s'>",
		nsComponent, nsStream, escape(name))
	if err != nil {
		return err
	}
	c.dec = xml.NewDecoder(c.conn)
	root, err := nextStart(c.dec)
	if err != nil {
		return err
	}
	if root.Name.Space != nsStream || root.Name.Local != "stream" {
		return fmt.Errorf("server sent <%s> in place of a stream", root.Name.Local)
	}
	id := ""
	for _, a := range root.Attr {
		if a.Name.Local == "id" {
			id = a.Value
		}
	}
	sum := sha1.Sum([]byte(id + secret))
	if _, err := fmt.Fprintf(c.conn, "<handshake>%s</handshake>", hex.EncodeToString(sum[:])); err != nil {
		return err
	}
	e, err := c.read()
	if err != nil {
		return err
	}
	if e.Name != "handshake" {
		return fmt.Errorf("handshake refused: %s", e)
	}
	return nil
}

func nextStart(d *xml.Decoder) (xml.StartElement, error) {
	for {
		t, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t.Copy(), nil
		case xml.EndElement:
			return xml.StartElement{}, errors.New("stream closed")
		}
	}
}

// read returns the next stanza.
func (c *component) read() (*element, error) {
	start, err := nextStart(c.dec)
	if err != nil {
		return nil, err
	}
	return readElement(c.dec, start, nsComponent)
}

// send queues a stanza. A server that does not read loses the connection.
func (c *component) send(e *element) {
	select {
	case <-c.closed:
		return
	default:
	}
	var b strings.Builder
	e.write(&b, nsComponent)
	select {
	case c.queue <- b.String():
	default:
		_ = c.conn.Close()
	}
}

func (c *component) write() {
	defer c.done.Done()
	for {
		select {
		case s := <-c.queue:
			if !c.writeOut(s) {
				return
			}
		case <-c.closed:
			// What is queued and the end go out at once, so that the server
			// routes nothing more to us; it then ends its side.
			var b strings.Builder
			for len(c.queue) > 0 {
				b.WriteString(<-c.queue)
			}
			if c.writeOut(b.String() + "</stream:stream>") {
				_ = c.conn.SetReadDeadline(time.Now().Add(closeTimeout))
			}
			return
		}
	}
}

func (c *component) writeOut(s string) bool {
	_ = c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.conn.Write([]byte(s)); err != nil {
		_ = c.conn.Close() // which ends the reader
		return false
	}
	return true
}

// close sends what is queued and ends the stream; the reader gets an error
// when the server has ended it too, at the latest after closeTimeout.
func (c *component) close() {
	c.once.Do(func() { close(c.closed) })
	c.done.Wait()
}
