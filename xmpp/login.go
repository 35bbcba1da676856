package xmpp

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"mellium.im/sasl"

	"brewline/xmpp/bosh"
	"brewline/xmpp/internal/dial"
	"brewline/xmpp/internal/split"
)

const (
	nsSASL    = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	nsTLS     = "urn:ietf:params:xml:ns:xmpp-tls"
	nsStreams = "http://etherx.jabber.org/streams"
)

// maxEarly bounds what may arrive before the bind result.
const maxEarly = 64

// Dial connects, logs in and binds a resource. errors.Is tells ErrUnreachable,
// ErrTLS, ErrAuth, ErrDomain and ErrShardChanged.
func Dial(ctx context.Context, o Options) (*Session, error) {
	o = o.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	s := &Session{
		o: o, log: o.Logger, prefix: randomHex(4) + "-", start: time.Now(),
		done: make(chan struct{}), reader: make(chan struct{}),
		pending: map[string]*pendingIQ{}, rooms: map[JID]*Room{}, lobbies: map[JID]*Lobby{},
		caps: Caps{Hash: "sha-1", Node: o.CapsNode, Ver: CapsHash(o.Disco)},
	}
	if err := s.connect(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil, fmt.Errorf("connect %s for %s: %w", safeURL(o.URL), o.Domain, dialError(err))
	}
	stop := context.AfterFunc(ctx, func() { s.t.Abort(context.Cause(ctx)) })
	err := s.login()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.t.Abort(ErrClosed)
		s.t.Wait()
		if ctx.Err() != nil && !errors.Is(err, ErrAuth) {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("log in at %s (%s): %w", o.Domain, safeURL(o.URL), dialError(err))
	}
	s.t.Established()
	if o.PingInterval > 0 {
		s.mu.Lock()
		s.ping = time.AfterFunc(o.PingInterval, s.watch)
		s.mu.Unlock()
	}
	go s.read()
	return s, nil
}

// safeURL is the address without parameters, which may be secret.
func safeURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "invalid URL"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

func (s *Session) connect(ctx context.Context) error {
	u, err := url.Parse(s.o.URL)
	if err != nil || u.Host == "" {
		return errors.New("invalid URL")
	}
	if s.o.Domain == "" {
		return errors.New("no domain to log in to")
	}
	switch u.Scheme {
	case "http", "https":
		s.secure = u.Scheme == "https"
		c, err := bosh.Dial(ctx, bosh.Options{
			URL: s.withQuery(u), Domain: s.o.Domain, Wait: s.o.Wait, Grace: s.o.PingTimeout, Connections: s.o.Connections,
			TLS: s.o.TLS, ShardHeader: s.o.ShardHeader, MaxStanza: s.o.MaxStanza, QueueSize: s.o.QueueSize, Logger: s.log,
		})
		if err != nil {
			return err
		}
		s.t = c
	case "ws", "wss":
		s.secure = u.Scheme == "wss"
		t, err := dialWebSocket(ctx, s.withQuery(u), s.o)
		if err != nil {
			return err
		}
		s.t = t
	case "xmpp", "xmpps":
		t, secure, err := dialTCP(ctx, u, s.o)
		if err != nil {
			return err
		}
		s.t, s.secure = t, secure
	default:
		return fmt.Errorf("unknown scheme %q", u.Scheme)
	}
	return nil
}

// withQuery adds what every HTTP request of the session carries.
func (s *Session) withQuery(u *url.URL) string {
	q := u.Query()
	for k, v := range s.o.Query {
		q[k] = v
	}
	if s.o.Room != "" {
		q.Set("room", s.o.Room)
	}
	if s.o.Token != "" {
		q.Set("token", s.o.Token)
	}
	c := *u
	c.RawQuery = q.Encode()
	return c.String()
}

// dialError gives an error its sentinel.
func dialError(err error) error {
	for _, known := range []error{ErrAuth, ErrDomain, ErrShardChanged, ErrTLS, ErrUnreachable} {
		if errors.Is(err, known) {
			return err
		}
	}
	var tlsErr *dial.TLSError
	if errors.As(err, &tlsErr) {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	var term *bosh.TerminateError
	if errors.As(err, &term) && slices.Contains([]string{"improper-addressing", "host-unknown", "host-gone"}, term.Condition) {
		return fmt.Errorf("%w: %w", ErrDomain, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// sessionError is why an established session ended.
func sessionError(err error) error {
	switch {
	case errors.Is(err, bosh.ErrClosed), errors.Is(err, ErrClosed):
		return ErrClosed
	case errors.Is(err, ErrShardChanged), errors.Is(err, ErrSessionLost), errors.Is(err, ErrDomain):
		return err
	}
	return fmt.Errorf("%w: %w", ErrSessionLost, err)
}

type features struct {
	XMLName    xml.Name
	Mechanisms []string `xml:"urn:ietf:params:xml:ns:xmpp-sasl mechanisms>mechanism"`
	StartTLS   *struct {
		Required *struct{} `xml:"required"`
	} `xml:"urn:ietf:params:xml:ns:xmpp-tls starttls"`
	Bind *struct{} `xml:"urn:ietf:params:xml:ns:xmpp-bind bind"`
}

// isStreamNS: a prefix that the BOSH body declared does not resolve any more.
func isStreamNS(space string) bool { return space == nsStreams || space == "stream" }

func elementName(b []byte) xml.Name {
	n, _ := readHead(b)
	return n
}

// streamError is the stream error (RFC 6120 §4.9) in b, nil if it is none.
func streamError(b []byte) error {
	if n := elementName(b); n.Local != "error" || !isStreamNS(n.Space) {
		return nil
	}
	var e struct {
		Text  string `xml:"text"`
		Conds []struct {
			XMLName xml.Name
		} `xml:",any"`
	}
	if err := xml.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("%w: stream error", ErrSessionLost)
	}
	cond := "undefined-condition"
	if len(e.Conds) > 0 {
		cond = e.Conds[0].XMLName.Local
	}
	err := ErrSessionLost
	switch cond {
	case "host-unknown", "host-gone", "improper-addressing":
		err = ErrDomain
	case "not-authorized", "policy-violation":
		if strings.Contains(e.Text, "oken") { // mod_auth_token refuses at once over WebSocket
			err = ErrAuth
		}
	}
	if e.Text != "" {
		cond += ": " + clip(e.Text)
	}
	return fmt.Errorf("%w: stream error %s", err, cond)
}

func recvFeatures(recv func() (split.Element, error)) (*features, error) {
	for {
		el, err := recv()
		if err != nil {
			return nil, err
		}
		if err := streamError(el.Data); err != nil {
			return nil, err
		}
		if n := elementName(el.Data); n.Local != "features" || !isStreamNS(n.Space) || el.Bad {
			continue
		}
		var f features
		if err := xml.Unmarshal(el.Data, &f); err != nil {
			return nil, fmt.Errorf("stream features: %w", err)
		}
		return &f, nil
	}
}

func (s *Session) login() error {
	f, err := recvFeatures(s.t.Recv)
	if err != nil {
		return err
	}
	if err := s.authenticate(f.Mechanisms); err != nil {
		return err
	}
	if err := s.t.Restart(); err != nil {
		return err
	}
	if f, err = recvFeatures(s.t.Recv); err != nil {
		return err
	}
	if f.Bind == nil {
		return errors.New("server offers no resource binding")
	}
	return s.bind()
}

// mechanism chooses the strongest of what is offered and permitted.
func (s *Session) mechanism(offered []string) (sasl.Mechanism, error) {
	if s.o.Username == "" && s.o.Password == "" {
		if slices.Contains(offered, sasl.Anonymous.Name) {
			return sasl.Anonymous, nil
		}
		return sasl.Mechanism{}, fmt.Errorf("%w: anonymous login not offered, only %s", ErrAuth, clip(strings.Join(offered, " ")))
	}
	for _, m := range []sasl.Mechanism{sasl.ScramSha256, sasl.ScramSha1} {
		if slices.Contains(offered, m.Name) {
			return m, nil
		}
	}
	if slices.Contains(offered, sasl.Plain.Name) {
		if s.secure || s.o.AllowPlain {
			return sasl.Plain, nil
		}
		return sasl.Mechanism{}, fmt.Errorf("%w: PLAIN refused on an unencrypted connection", ErrAuth)
	}
	return sasl.Mechanism{}, fmt.Errorf("%w: no usable mechanism among %q", ErrAuth, clip(strings.Join(offered, " ")))
}

type saslAuth struct {
	XMLName   xml.Name `xml:"urn:ietf:params:xml:ns:xmpp-sasl auth"`
	Mechanism string   `xml:"mechanism,attr"`
	Data      string   `xml:",chardata"`
}

type saslResponse struct {
	XMLName xml.Name `xml:"urn:ietf:params:xml:ns:xmpp-sasl response"`
	Data    string   `xml:",chardata"`
}

func (s *Session) authenticate(offered []string) error {
	m, err := s.mechanism(offered)
	if err != nil {
		return err
	}
	neg := sasl.NewClient(m, sasl.Credentials(func() ([]byte, []byte, []byte) {
		return []byte(s.o.Username), []byte(s.o.Password), nil
	}))
	more, resp, err := neg.Step(nil)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAuth, m.Name, err)
	}
	data := ""
	if m.Name != sasl.Anonymous.Name {
		if data = base64.StdEncoding.EncodeToString(resp); data == "" {
			data = "=" // RFC 6120 §6.4.2
		}
	}
	if err := s.sendNonza(saslAuth{Mechanism: m.Name, Data: data}); err != nil {
		return err
	}
	scram := strings.HasPrefix(m.Name, "SCRAM-")
	verified := !scram
	for round := 0; round < 4; {
		el, err := s.t.Recv()
		if err != nil {
			return err
		}
		if err := streamError(el.Data); err != nil {
			return err
		}
		n := elementName(el.Data)
		if n.Space != nsSASL || el.Bad {
			continue
		}
		round++
		switch n.Local {
		case "failure":
			return saslFailure(el.Data)
		case "challenge":
			in, err := saslData(el.Data)
			if err == nil && scram && round == 1 {
				err = checkSCRAM(in)
			}
			if err == nil && !more {
				err = errors.New("unexpected challenge")
			}
			var out []byte
			if err == nil {
				if more, out, err = neg.Step(in); scram && err == nil && !more {
					verified = true
				}
			}
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrAuth, m.Name, err)
			}
			if err := s.sendNonza(saslResponse{Data: base64.StdEncoding.EncodeToString(out)}); err != nil {
				return err
			}
		case "success":
			// SCRAM's last message proves that the server knows the password.
			if in, err := saslData(el.Data); err == nil && len(in) > 0 && more {
				if _, _, err = neg.Step(in); err != nil {
					return fmt.Errorf("%w: %s: %w", ErrAuth, m.Name, err)
				}
				verified = true
			}
			if !verified {
				return fmt.Errorf("%w: %s: server did not prove itself", ErrAuth, m.Name)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: %s: too many challenges", ErrAuth, m.Name)
}

func (s *Session) sendNonza(v any) error {
	b, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	return s.t.Send(b)
}

func saslData(b []byte) ([]byte, error) {
	var e struct {
		Data string `xml:",chardata"`
	}
	if err := xml.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	e.Data = strings.TrimSpace(e.Data)
	if e.Data == "=" {
		return nil, nil
	}
	return base64.StdEncoding.DecodeString(e.Data)
}

// checkSCRAM looks at the server's first message (RFC 5802 §5.1) before it is
// acted on: fields in order, and an iteration count that ends today.
func checkSCRAM(b []byte) error {
	fields := strings.Split(string(b), ",")
	if len(fields) < 3 {
		return errors.New("challenge incomplete")
	}
	for i, f := range fields {
		if len(f) < 3 || f[1] != '=' || (i < 3 && f[0] != "rsi"[i]) {
			return errors.New("challenge malformed")
		}
	}
	if n, err := strconv.Atoi(fields[2][2:]); err != nil || n < 1 || n > 1_000_000 {
		return errors.New("iteration count out of range")
	}
	return nil
}

func saslFailure(b []byte) error {
	var f struct {
		Text  string `xml:"text"`
		Conds []struct {
			XMLName xml.Name
		} `xml:",any"`
	}
	cond := "failure"
	if err := xml.Unmarshal(b, &f); err == nil && len(f.Conds) > 0 {
		cond = f.Conds[0].XMLName.Local
	}
	if f.Text != "" {
		cond += ": " + clip(f.Text)
	}
	return fmt.Errorf("%w: %s", ErrAuth, cond)
}

type bindPayload struct {
	XMLName  xml.Name `xml:"urn:ietf:params:xml:ns:xmpp-bind bind"`
	Resource string   `xml:"resource,omitempty"`
	JID      string   `xml:"jid,omitempty"`
}

// bind asks for a resource (RFC 6120 §7). Other stanzas may come before the
// result; they are kept for the reader.
func (s *Session) bind() error {
	id := s.nextID()
	b, err := marshalStanza(&IQ{Type: "set", ID: id, Payload: bindPayload{Resource: s.o.Resource}})
	if err != nil {
		return err
	}
	if err := s.t.Send(b); err != nil {
		return err
	}
	for {
		el, err := s.t.Recv()
		if err != nil {
			return err
		}
		if err := streamError(el.Data); err != nil {
			return err
		}
		v, err := decodeStanza(el.Data)
		iq, ok := v.(*IQ)
		if err != nil || !ok || iq.ID != id || (iq.Type != "result" && iq.Type != "error") {
			if len(s.early) == maxEarly {
				return errors.New("no bind result among many stanzas")
			}
			s.early = append(s.early, el)
			continue
		}
		if iq.Type == "error" {
			return fmt.Errorf("%w: bind: %w", ErrAuth, iq.Error)
		}
		var p bindPayload
		if err := iq.Decode(&p); err != nil {
			return fmt.Errorf("bind result: %w", err)
		}
		if s.jid, err = ParseJID(p.JID); err != nil {
			return fmt.Errorf("bind result: %w", err)
		}
		return nil
	}
}
