package brewery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// balancerURL fills in the pattern that web users have. Room and tenant are
// parameters or folders as a browser sends them.
func (n *snapshot) balancerURL(r Room) (*url.URL, error) {
	folder := ""
	if r.Tenant != "" {
		folder = "/" + r.Tenant
	}
	text := strings.NewReplacer(
		"{host}", strings.ToLower(n.Domain),
		"{subdomain}", folder,
		"{roomName}", url.QueryEscape(r.Name),
	).Replace(n.Balancer)
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: its URL pattern gives %s: %w", ErrBalancer, shown(text), err)
	}
	q := u.Query()
	q.Set("room", r.Name)
	if r.Tenant != "" && !strings.Contains(n.Balancer, "{subdomain}") {
		q.Set("prefix", r.Tenant)
	}
	u.RawQuery = q.Encode()
	return u, nil
}

// askBalancer lets the load balancer choose a shard for the room, as it does
// for the first web user: a sticky balancer sends whoever comes with the same
// ?room= to the same shard.
func (d *Deployment) askBalancer(ctx context.Context, n *snapshot, r Room) (Location, error) {
	u, err := n.balancerURL(r)
	if err != nil {
		return Location{}, err
	}
	loc := Location{How: HowBalancer, ViaBalancer: true, URL: u.String()}
	ask := *u
	switch ask.Scheme {
	case "ws":
		ask.Scheme = "http"
	case "wss":
		ask.Scheme = "https"
	}
	said, err := d.get(ctx, n, ask.String())
	if err != nil {
		// Once more, if there is time: a backend may just have died.
		pause := time.NewTimer(20*time.Millisecond + rand.N(60*time.Millisecond))
		select {
		case <-pause.C:
			said, err = d.get(ctx, n, ask.String())
		case <-ctx.Done():
			pause.Stop()
		}
	}
	if err != nil {
		return Location{}, err
	}
	if said == "" {
		d.set.count.balancerNoHeader.Add(1)
		return loc, nil
	}
	if loc.Shard = n.named(said); loc.Shard == nil {
		d.set.count.balancerUnknown.Add(1)
		d.set.log.Warn("the load balancer names a shard that header_value of no shard, or of several, has",
			"room", r.String(), "header", n.ShardHeader, "says", shown(said))
		return loc, nil
	}
	// The balancer reaches it even if we, on its own address, do not.
	if loc.Shard.worthAsking() {
		loc.ViaBalancer, loc.URL = false, loc.Shard.Config().URL
	}
	return loc, nil
}

// named is the one shard whose header_value that is, nil if there is none, or
// several.
func (n *snapshot) named(said string) *Shard {
	var match *Shard
	for _, sh := range n.shards {
		if sh.Config().HeaderValue != said {
			continue
		}
		if match != nil {
			return nil
		}
		match = sh
	}
	return match
}

// TryBalancer asks the load balancer which shard a room belongs to, as Locate
// does, over a connection of its own: what it says, which is nothing if it
// sends no shard header, and the one shard that is meant, or nil. Only for
// deployments with a balancer.
func (d *Deployment) TryBalancer(ctx context.Context, r Room) (says string, shard *Shard, err error) {
	n := d.snap.Load()
	defer n.closeIdle()
	u, err := n.balancerURL(r)
	if err != nil {
		return "", nil, err
	}
	if says, err = d.get(ctx, n, u.String()); err != nil {
		return "", nil, err
	}
	return says, n.named(says), nil
}

// get returns the value of the shard header, or "" when there is none.
func (d *Deployment) get(ctx context.Context, n *snapshot, addr string) (string, error) {
	d.set.count.balancerRequests.Add(1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBalancer, err)
	}
	req.Header.Set("User-Agent", "Brewline")
	res, err := n.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is in the log already
		}
		return "", fmt.Errorf("%w: %w", ErrBalancer, err)
	}
	defer res.Body.Close()
	if 0 <= res.ContentLength && res.ContentLength <= 4<<10 {
		_, _ = io.Copy(io.Discard, res.Body) // so that the connection can be used again
	}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300,
		// Some servers want no GET here; they are the right servers all the same.
		res.StatusCode == http.StatusBadRequest, res.StatusCode == http.StatusMethodNotAllowed:
		return strings.TrimSpace(res.Header.Get(n.ShardHeader)), nil
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return "", fmt.Errorf("%w: it redirects to %s: write that address as balancer, if it is the right one",
			ErrBalancer, shown(res.Header.Get("Location")))
	}
	return "", fmt.Errorf("%w: it answers %s", ErrBalancer, shown(res.Status))
}

// balancerClient makes the client for a deployment's balancer. The balancer
// has no TLS options of its own: whatever authority signs for a shard may sign
// for it too, and if no shard's certificate is checked, neither is its.
func (s *Set) balancerClient(n *snapshot) {
	if n.Balancer == "" {
		return
	}
	insecure := len(n.shards) > 0
	var pool *x509.CertPool
	for _, sh := range n.shards {
		t := sh.Config().TLS
		insecure = insecure && t.Insecure
		if t.CA == "" {
			continue
		}
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			s.log.Error("cannot read trusted certificates", "shard", sh.name, "err", err)
			continue
		}
		if pool == nil {
			if pool, err = x509.SystemCertPool(); err != nil {
				pool = x509.NewCertPool()
			}
		}
		pool.AppendCertsFromPEM(pem)
	}
	if pool != nil || insecure {
		n.tls = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, InsecureSkipVerify: insecure}
	}
	c := http.Client{}
	if s.o.HTTP != nil {
		c = *s.o.HTTP
	} else {
		n.own = true
		c.Transport = &http.Transport{
			TLSClientConfig:        n.tls.Clone(),
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	n.client = &c
}

// through says whether a leg at sh goes through the balancer: one that looks at
// another shard than the one located does not.
func (l Location) through(sh *Shard) bool {
	return l.ViaBalancer && (sh == nil || sh == l.Shard)
}
