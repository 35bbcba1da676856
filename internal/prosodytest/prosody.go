package prosodytest

import (
	"bytes"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"brewline/internal/needtool"
)

//go:embed mod_muc_hidden.lua
var hideRooms []byte

// Options of a server. Empty names follow from Domain.
type Options struct {
	Domain          string            // anonymous virtual host, default "meet.test"
	AuthDomain      string            // virtual host with accounts, default auth.<Domain>
	MUC             string            // default conference.<Domain>
	InternalMUC     string            // default internal.<AuthDomain>
	ComponentDomain string            // external component, default focus.<Domain>
	ComponentSecret string            // default "secret"
	Accounts        map[string]string // user name to password, on AuthDomain
	Admins          []string          // JIDs; admins own every room
	// RestrictRooms lets only admins create rooms in MUC, as Jitsi does.
	RestrictRooms bool
	// HideRooms makes MUC answer disco#info about a room with forbidden unless
	// an occupant asks, as Jitsi's mod_muc_hide_all does.
	HideRooms bool
	// TLS offers STARTTLS and https with a certificate of its own for Domain,
	// AuthDomain and 127.0.0.1; Server.Roots verifies it.
	TLS bool
	// Modules are loaded besides the necessary ones; Extra is appended to the
	// global section of the configuration.
	Modules []string
	Extra   string
}

func (o Options) withDefaults() Options {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&o.Domain, "meet.test")
	def(&o.AuthDomain, "auth."+o.Domain)
	def(&o.MUC, "conference."+o.Domain)
	def(&o.InternalMUC, "internal."+o.AuthDomain)
	def(&o.ComponentDomain, "focus."+o.Domain)
	def(&o.ComponentSecret, "secret")
	return o
}

// Server is a running Prosody.
type Server struct {
	Options
	tb      testing.TB
	program string
	dir     string
	ports   ports
	roots   *x509.CertPool
	cmd     *exec.Cmd
	done    chan struct{}
}

type ports struct{ HTTP, HTTPS, C2S, Component int }

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// Start runs a server until the test ends. Without Prosody the test is skipped
// or fails, as needtool says.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	program := needtool.Path(tb, "prosody")
	s := &Server{Options: o.withDefaults(), tb: tb, program: program, dir: tb.TempDir()}
	if o.HideRooms {
		if err := os.WriteFile(filepath.Join(s.dir, "mod_muc_hidden.lua"), hideRooms, 0o600); err != nil {
			tb.Fatalf("prosody: %v", err)
		}
	}
	if o.TLS {
		roots, err := WriteCertificate(s.dir, s.Domain, s.AuthDomain)
		if err != nil {
			tb.Fatalf("prosody: certificate: %v", err)
		}
		s.roots = roots
	}
	for user, password := range o.Accounts {
		if err := s.writeAccount(user, password); err != nil {
			tb.Fatalf("prosody: account %s: %v", user, err)
		}
	}
	tb.Cleanup(func() {
		s.Close()
		if tb.Failed() {
			tb.Logf("prosody said:\n%s", s.Log())
		}
	})
	// Ports cannot be given as 0, and one that was free may be taken before
	// Prosody has it: then take others.
	var err error
	for range 5 {
		if err = s.choosePorts(); err == nil {
			if err = s.run(); err == nil {
				return s
			}
		}
	}
	tb.Fatalf("prosody: %v\n%s", err, s.Log())
	return nil
}

func (s *Server) addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// BOSHURL is the BOSH endpoint.
func (s *Server) BOSHURL() string { return "http://" + s.addr(s.ports.HTTP) + "/http-bind" }

// SecureBOSHURL is the BOSH endpoint over TLS, with Options.TLS.
func (s *Server) SecureBOSHURL() string { return "https://" + s.addr(s.ports.HTTPS) + "/http-bind" }

// WebSocketURL is the WebSocket endpoint.
func (s *Server) WebSocketURL() string { return "ws://" + s.addr(s.ports.HTTP) + "/xmpp-websocket" }

// SecureWebSocketURL is the WebSocket endpoint over TLS, with Options.TLS.
func (s *Server) SecureWebSocketURL() string {
	return "wss://" + s.addr(s.ports.HTTPS) + "/xmpp-websocket"
}

// C2SAddr is the host:port for clients over TCP.
func (s *Server) C2SAddr() string { return s.addr(s.ports.C2S) }

// ComponentAddr is the host:port for the external component.
func (s *Server) ComponentAddr() string { return s.addr(s.ports.Component) }

// Roots verify the server's certificate, with Options.TLS.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// CAFile is a file that holds the same in PEM.
func (s *Server) CAFile() string { return filepath.Join(s.dir, "cert.pem") }

// Log is what the server has logged.
func (s *Server) Log() string {
	out, _ := os.ReadFile(filepath.Join(s.dir, "output"))
	b, _ := os.ReadFile(filepath.Join(s.dir, "prosody.log"))
	return string(out) + string(b)
}

// Close stops the server in an orderly way: sessions are told.
func (s *Server) Close() { s.stop(syscall.SIGTERM) }

// Kill stops the server without a word to anybody.
func (s *Server) Kill() { s.stop(syscall.SIGKILL) }

// Restart starts a stopped server again on the same ports.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Close()
	var err error
	for range 10 { // another may have the port for a moment
		if err = s.run(); err == nil {
			return
		}
	}
	s.tb.Fatalf("prosody: restart: %v\n%s", err, s.Log())
}

func (s *Server) stop(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.done:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	s.cmd = nil
}

// choosePorts takes ports that nobody listens on, all at once so that they
// differ.
func (s *Server) choosePorts() error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for _, p := range []*int{&s.ports.HTTP, &s.ports.HTTPS, &s.ports.C2S, &s.ports.Component} {
		l, err := listen()
		if err != nil {
			return err
		}
		held = append(held, l)
		*p = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// listen takes a random port below those that the kernel gives to outgoing
// connections: one of these would else be in the way of a restart.
func listen() (l net.Listener, err error) {
	const lowest = 10000
	first := 0
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &first)
	}
	for range 20 {
		port := 0
		if first > lowest {
			port = lowest + rand.IntN(first-lowest)
		}
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l, nil
		}
	}
	return nil, err
}

func (s *Server) run() error {
	path := filepath.Join(s.dir, "prosody.cfg.lua")
	var cfg bytes.Buffer
	if err := configuration.Execute(&cfg, struct {
		Options
		Ports ports
		Dir   string
		Root  bool
	}{s.Options, s.ports, s.dir, os.Geteuid() == 0}); err != nil {
		return err
	}
	if err := os.WriteFile(path, cfg.Bytes(), 0o600); err != nil {
		return err
	}
	before := len(s.Log())
	cmd := exec.Command(s.program, "-F", "--config", path)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PROSODY_CONFIG="+path, "LC_ALL=C")
	out, err := os.OpenFile(filepath.Join(s.dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	// A test that dies takes the child with it. The signal comes when the
	// thread that started the child ends, so that one is kept.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.done = cmd, done
	err = s.await()
	// It goes on without a port that another has taken meanwhile, who then
	// answers in its place.
	if said := s.Log(); err == nil && strings.Contains(said[min(before, len(said)):], "Failed to open server port") {
		err = errors.New("a port is in use by another program")
	}
	if err != nil {
		s.Kill()
	}
	return err
}

// await returns once all services answer.
func (s *Server) await() error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	up := func() error {
		res, err := client.Get(s.BOSHURL())
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("BOSH answers %s", res.Status)
		}
		for _, p := range []int{s.ports.C2S, s.ports.Component} {
			c, err := net.DialTimeout("tcp", s.addr(p), time.Second)
			if err != nil {
				return err
			}
			_ = c.Close()
		}
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startTimeout)
	var err error
	for {
		select {
		case <-s.done:
			return errors.New("ended at once")
		case <-deadline:
			return fmt.Errorf("not up within %s: %w", startTimeout, err)
		case <-tick.C:
			if err = up(); err == nil {
				return nil
			}
		}
	}
}

// writeAccount stores a plain password, which internal_hashed hashes at the
// first login.
func (s *Server) writeAccount(user, password string) error {
	dir := filepath.Join(s.dir, "data", encode(s.AuthDomain), "accounts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf("return { [\"password\"] = %s; };\n", luaString(password))
	return os.WriteFile(filepath.Join(dir, encode(user)+".dat"), []byte(text), 0o600)
}

// encode names files as Prosody's datamanager does.
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

func luaString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		fmt.Fprintf(&b, "\\%03d", s[i])
	}
	b.WriteByte('"')
	return b.String()
}

var configuration = template.Must(template.New("cfg").Funcs(template.FuncMap{"lua": luaString}).Parse(`
{{if .Root}}run_as_root = true
{{end}}pidfile = {{lua (print .Dir "/prosody.pid")}}
data_path = {{lua (print .Dir "/data")}}
certificates = {{lua .Dir}}
log = { info = {{lua (print .Dir "/prosody.log")}} }
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
{{if .HideRooms}}plugin_paths = { {{lua .Dir}} }
{{end}}c2s_ports = { {{.Ports.C2S}} }
c2s_direct_tls_ports = { }
s2s_ports = { }
http_ports = { {{.Ports.HTTP}} }
http_interfaces = { "127.0.0.1" }
https_interfaces = { "127.0.0.1" }
component_ports = { {{.Ports.Component}} }
component_interfaces = { "127.0.0.1" }
http_default_host = {{lua .Domain}}
trusted_proxies = { "127.0.0.1" }
consider_bosh_secure = true
consider_websocket_secure = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = false
{{if .TLS}}https_ports = { {{.Ports.HTTPS}} }
ssl = { certificate = {{lua (print .Dir "/cert.pem")}}; key = {{lua (print .Dir "/key.pem")}} }
https_ssl = ssl
{{else}}https_ports = { }
{{end}}modules_enabled = { "saslauth"; "disco"; "ping"; "bosh"; "websocket"; {{if .TLS}}"tls"; {{end}}{{range .Modules}}{{lua .}}; {{end}}}
modules_disabled = { "s2s"; "limits"; "offline"; {{if not .TLS}}"tls"; {{end}}}
admins = { {{range .Admins}}{{lua .}}; {{end}}}
component_admins_as_room_owners = true
{{.Extra}}

VirtualHost {{lua .Domain}}
	authentication = "anonymous"
	allow_anonymous_s2s = false

VirtualHost {{lua .AuthDomain}}
	authentication = "internal_hashed"

Component {{lua .MUC}} "muc"
	storage = "memory" -- as Jitsi sets it; a kill leaves no half-written room
	muc_room_locking = false
	muc_room_default_public_jids = true
	{{if .RestrictRooms}}restrict_room_creation = true
	{{end}}{{if .HideRooms}}modules_enabled = { "muc_hidden" }
	{{end}}
Component {{lua .InternalMUC}} "muc"
	storage = "memory"
	muc_room_locking = false
	muc_room_default_public_jids = true

Component {{lua .ComponentDomain}}
	component_secret = {{lua .ComponentSecret}}
`))
