package sip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// UA is a SIP user agent on its listeners. Make one with [Listen].
type UA struct {
	o         Options
	log       *slog.Logger
	parser    *sip.Parser
	listeners []*listener
	invalid   string // our host in what goes out over WebSocket (RFC 7118 §5.2)
	failing   failing
	seen      sync.Map // seenKey to netip.AddrPort; of registrars and proxies

	trunkLimit, strangerLimit *limiter
	record                    *record
	nonces                    *nonces
	gate                      logGate
	stats                     counters
	conns                     atomic.Int64 // accepted
	strangers                 atomic.Int64 // of conns

	ctx  context.Context // ends at Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	// mu is taken last: after a Dialog's and after a transaction's.
	mu      sync.Mutex
	closed  bool
	txs     map[string]*serverTx
	loops   map[string]struct{}
	clients map[string]*clientTx
	dialogs map[dialogID]*Dialog
	open    map[*conn]struct{}
	reuse   map[connKey]*conn    // of open, for requests of ours
	near    map[netip.Prefix]int // accepted ones of open, by source

	dialling map[connKey]*dialling
	called   map[netip.Addr]int // with whom we have dialogs, or requests under way
	calling  int                // Invites that run
}

type counters struct {
	received, malformed, dropped, refused, limited, banned, challenged, failed atomic.Uint64
}

// Stats are counters of a user agent since it began, and what it holds now.
type Stats struct {
	Received  uint64 // messages and keep-alives
	Malformed uint64 // messages that could not be read
	Dropped   uint64 // from unknown sources, without an answer
	Refused   uint64 // from unknown sources, answered with 403
	Limited   uint64 // from a trunk, over its rate
	Banned    uint64 // from banned addresses, not read
	// Challenged counts requests answered with 401, Failed those with a wrong
	// user or password.
	Challenged, Failed uint64

	BannedAddresses int

	Dialogs            int
	ServerTransactions int
	ClientTransactions int
	Connections        int
}

// Stats returns the counters.
func (u *UA) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Stats{
		Received: u.stats.received.Load(), Malformed: u.stats.malformed.Load(), Dropped: u.stats.dropped.Load(),
		Refused: u.stats.refused.Load(), Limited: u.stats.limited.Load(), Banned: u.stats.banned.Load(),
		Challenged: u.stats.challenged.Load(), Failed: u.stats.failed.Load(), BannedAddresses: u.record.bans(u.now()),
		Dialogs: len(u.dialogs), ServerTransactions: len(u.txs), ClientTransactions: len(u.clients), Connections: len(u.open),
	}
}

// Listen binds the listeners of o and serves them. Everything is bound when
// it returns; ctx bounds the binding and does not stop the user agent.
func Listen(ctx context.Context, o Options) (*UA, error) {
	switch {
	case len(o.Listen) == 0:
		return nil, errors.New("sip: no listeners")
	case o.OnInvite == nil:
		return nil, errors.New("sip: no OnInvite")
	case o.UnknownSource != "" && o.UnknownSource != "reject" && o.UnknownSource != "drop":
		return nil, fmt.Errorf("sip: UnknownSource %q is neither reject nor drop", o.UnknownSource)
	}
	o = o.withDefaults()
	u := &UA{
		o: o, log: o.Logger, parser: newParser(o.MaxMessage),
		trunkLimit: newLimiter(o.Rate, o.Burst, 0), strangerLimit: newLimiter(o.UnknownRate, o.UnknownBurst, o.UnknownTotal),
		record: newRecord(o.BanAfter, o.BanTime), nonces: newNonces(time.Now()),
		txs: map[string]*serverTx{}, loops: map[string]struct{}{}, clients: map[string]*clientTx{},
		dialogs: map[dialogID]*Dialog{}, open: map[*conn]struct{}{}, reuse: map[connKey]*conn{}, near: map[netip.Prefix]int{},
		dialling: map[connKey]*dialling{}, called: map[netip.Addr]int{},
	}
	u.invalid = strings.ToLower(token(12)) + ".invalid"
	u.ctx, u.stop = context.WithCancel(context.Background())
	for _, l := range o.Listen {
		ln, err := u.bind(ctx, l)
		if err != nil {
			for _, ln := range u.listeners {
				ln.close()
			}
			u.stop()
			if op := (*net.OpError)(nil); errors.As(err, &op) {
				err = op.Err // the rest says the address again
			}
			return nil, fmt.Errorf("sip: listen on %s %s: %w", l.Network, l.Address, err)
		}
		u.listeners = append(u.listeners, ln)
	}
	for _, ln := range u.listeners {
		if ln.udp != nil {
			u.wg.Go(ln.readUDP)
		} else {
			u.wg.Go(ln.accept)
		}
	}
	return u, nil
}

// Addrs returns the bound addresses in the order of Options.Listen.
func (u *UA) Addrs() []net.Addr {
	var out []net.Addr
	for _, l := range u.listeners {
		out = append(out, l.netAddr())
	}
	return out
}

// Close ends every dialog without a message, closes the listeners and returns
// when every goroutine of the user agent has ended; those of OnInvite are not
// its own. It is idempotent.
func (u *UA) Close() error {
	u.mu.Lock()
	u.closed = true
	var dialogs []*Dialog
	for _, d := range u.dialogs {
		dialogs = append(dialogs, d)
	}
	var txs []*serverTx
	for _, tx := range u.txs {
		txs = append(txs, tx)
	}
	var conns []*conn
	for c := range u.open {
		conns = append(conns, c)
	}
	u.mu.Unlock()

	u.stop()
	for _, d := range dialogs {
		d.lose(fmt.Errorf("sip: user agent closed: %w", ErrEnded))
	}
	for _, tx := range txs {
		tx.terminate()
	}
	for _, l := range u.listeners {
		l.close()
	}
	for _, c := range conns {
		c.close()
	}
	u.wg.Wait()
	return nil
}

// spawn runs f in a goroutine that Close waits for, unless it is too late.
func (u *UA) spawn(f func()) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.wg.Go(f)
	return true
}

// pause waits, and reports whether the user agent is still open.
func (u *UA) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-u.ctx.Done():
		return false
	}
}

// note logs what strangers can cause at will: one line of a kind a minute.
func (u *UA) note(kind string, args ...any) {
	if held, ok := u.gate.pass(kind, u.now()); ok {
		if held > 0 {
			args = append(args, "suppressed", held)
		}
		u.log.Warn("sip: "+kind, args...)
	}
}

func (u *UA) now() time.Time { return time.Now() }

// token returns a random token of n characters.
func token(n int) string {
	return rand.Text()[:n]
}
