package bosh

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"brewline/xmpp/internal/dial"
)

// spareLife is how long a connection opened in advance may wait for its first
// request; proxies close idle ones.
const spareLife = 2 * time.Second

// dialer opens the HTTP connections of one session, some of them in advance:
// the second one is needed just when the first conference request goes out,
// and its handshakes can run while the login still does.
type dialer struct {
	ctx context.Context // of the session
	tls *tls.Config

	mu     sync.Mutex
	extra  int // to open in advance once the first one stands
	spares []chan spare
	wg     sync.WaitGroup
}

type spare struct {
	c  net.Conn
	at time.Time
}

func newTransport(d *dialer, conns int, idle time.Duration) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return d.get(ctx, addr, false)
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return d.get(ctx, addr, true)
		},
		MaxConnsPerHost:     conns,
		MaxIdleConnsPerHost: conns,
		IdleConnTimeout:     idle,
		DisableCompression:  true,
		ReadBufferSize:      4 << 10,
		WriteBufferSize:     4 << 10,
	}
}

// open makes a connection; the first success starts the advance.
func (d *dialer) open(ctx context.Context, addr string, secure bool) (net.Conn, error) {
	c, err := d.connect(ctx, addr, secure)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; d.extra > 0 && d.ctx.Err() == nil; d.extra-- {
		ch := make(chan spare, 1)
		d.spares = append(d.spares, ch)
		d.wg.Go(func() {
			defer close(ch)
			if c, err := d.connect(d.ctx, addr, secure); err == nil {
				ch <- spare{c, time.Now()}
			}
		})
	}
	return c, nil
}

func (d *dialer) connect(ctx context.Context, addr string, secure bool) (net.Conn, error) {
	if secure {
		return dial.TLS(ctx, addr, d.tls, "http/1.1")
	}
	return dial.TCP(ctx, addr)
}

func (d *dialer) get(ctx context.Context, addr string, secure bool) (net.Conn, error) {
	for {
		d.mu.Lock()
		if len(d.spares) == 0 {
			d.mu.Unlock()
			return d.open(ctx, addr, secure)
		}
		ch := d.spares[0]
		d.spares = d.spares[1:]
		d.mu.Unlock()
		select {
		case s, ok := <-ch:
			if ok && time.Since(s.at) < spareLife {
				return s.c, nil
			}
			if ok {
				_ = s.c.Close()
			}
		case <-ctx.Done():
			d.mu.Lock()
			d.spares = append(d.spares, ch)
			d.mu.Unlock()
			return nil, ctx.Err()
		}
	}
}

// close ends what open began in advance; d.ctx must be over.
func (d *dialer) close() {
	d.mu.Lock()
	d.extra = 0
	d.mu.Unlock()
	d.wg.Wait()
	d.mu.Lock()
	spares := d.spares
	d.spares = nil
	d.mu.Unlock()
	for _, ch := range spares {
		if s, ok := <-ch; ok {
			_ = s.c.Close()
		}
	}
}
