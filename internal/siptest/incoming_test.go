package siptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

func phones(t *testing.T, change ...func(*PhoneOptions)) (caller, callee *Phone) {
	t.Helper()
	o := PhoneOptions{T1: 20 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	made := make([]*Phone, 2)
	for i := range made {
		var err error
		if made[i], err = NewPhone(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = made[i].Close() })
	}
	return made[0], made[1]
}

func testCtx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A phone calls a phone: it rings, sounds early, answers, and is hung up by
// either side.
func TestCalled(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s late offer %v", transport, late), func(t *testing.T) {
				ctx := testCtx(t)
				p, q := phones(t, func(o *PhoneOptions) { o.Transport, o.User, o.Display = transport, "alice", "Alice A." })
				a, err := p.Start(ctx, CallOptions{URI: q.URI("+4930"), Tone: 700, LateOffer: late, Headers: map[string]string{"X-Room": "standup"}})
				if err != nil {
					t.Fatal(err)
				}
				in, err := q.Await(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if in.RequestUser != "+4930" || in.From != (Party{"Alice A.", "alice", "127.0.0.1"}) || in.To.User != "+4930" ||
					in.Header("x-room") != "standup" || (in.Offer == nil) != late || q.Invites() != 1 {
					t.Errorf("unexpected call %+v", in)
				}
				if err := errors.Join(in.Trying(), in.Ring(ctx)); err != nil {
					t.Error(err)
				}
				if err := a.Provisional(ctx, 180); err != nil {
					t.Error(err)
				}
				if !late {
					if err := in.Early(ctx, 1500); err != nil {
						t.Error(err)
					}
					if err := a.Provisional(ctx, 183); err != nil {
						t.Error(err)
					}
				}
				called, err := in.Answer(ctx, AnswerOptions{Tone: 900})
				if err != nil {
					t.Fatal(err)
				}
				calling, err := a.Wait(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(called.Hear(ctx, 700), calling.Hear(ctx, 900)); err != nil {
					t.Error(err)
				}
				if err := errors.Join(called.Hold(ctx), called.Resume(ctx), called.Info(ctx, "text/plain", []byte("x"))); err != nil {
					t.Error(err)
				}
				if i := calling.Infos(); len(i) != 1 || string(i[0].Body) != "x" {
					t.Errorf("INFO %v", i)
				}
				called.Say(1100)
				if err := calling.Hear(ctx, 1100); err != nil {
					t.Error(err)
				}
				by, other := called, calling
				if late {
					by, other = calling, called
				}
				if err := by.Hangup(ctx); err != nil {
					t.Error(err)
				}
				if end := <-other.Ended(); !end.ByPeer {
					t.Errorf("end %+v", end)
				}
			})
		}
	}
}

func TestRejected(t *testing.T) {
	ctx := testCtx(t)
	p, q := phones(t, func(o *PhoneOptions) {
		o.Incoming = func(in *Incoming) {
			_ = in.Ring(context.Background())
			_ = in.Reject(302, "Moved Temporarily", "Contact: <sip:elsewhere@127.0.0.1>")
		}
	})
	var se *StatusError
	if _, err := p.Call(ctx, CallOptions{URI: q.URI("1")}); !errors.As(err, &se) || se.Code != 302 ||
		se.Headers["Contact"] != "<sip:elsewhere@127.0.0.1>" || !slices.Equal(se.Provisional, []int{180}) {
		t.Errorf("%v %+v", err, se)
	}
}

// A call that is cancelled; one that nobody answers at all.
func TestCalledInVain(t *testing.T) {
	ctx := testCtx(t)
	p, q := phones(t, func(o *PhoneOptions) { o.T1 = 4 * time.Millisecond })
	a, err := p.Start(ctx, CallOptions{URI: q.URI("1")})
	if err != nil {
		t.Fatal(err)
	}
	in, err := q.Await(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Early(ctx, 500); err != nil {
		t.Error(err)
	}
	if err := a.Provisional(ctx, 183); err != nil {
		t.Error(err)
	}
	if err := a.Cancel(); err != nil {
		t.Error(err)
	}
	var se *StatusError
	if _, err := a.Wait(ctx); !errors.As(err, &se) || se.Code != 487 {
		t.Error(err)
	}
	<-in.Cancelled()
	if _, err := in.Answer(ctx, AnswerOptions{}); err == nil {
		t.Error("answered what was cancelled")
	}
	if a, err = p.Start(ctx, CallOptions{URI: q.URI("2")}); err != nil {
		t.Fatal(err)
	}
	if in, err = q.Await(ctx); err != nil {
		t.Fatal(err)
	}
	in.Ignore()
	if _, err := a.Wait(ctx); !errors.Is(err, errTimeout) {
		t.Error(err)
	}
	if in.Copies() < 2 || q.Invites() != 2 {
		t.Errorf("%d copies of %d calls", in.Copies(), q.Invites())
	}
}

// A repeated INVITE gets the same answer and makes no second call.
func TestRepeatedInvite(t *testing.T) {
	ctx := testCtx(t)
	_, q := phones(t)
	c, err := net.Dial("udp", q.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	invite := "INVITE " + q.URI("x") + " SIP/2.0\r\nVia: SIP/2.0/UDP " + c.LocalAddr().String() + ";branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\n" +
		"To: <sip:x@y>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
	var first string
	for i := range 3 {
		if _, err := c.Write([]byte(invite)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			in, err := q.Await(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Ring(ctx); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 2000)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(b[:n])
		}
		if string(b[:n]) != first {
			t.Errorf("got\n%s, first\n%s", b[:n], first)
		}
	}
	if q.Invites() != 1 {
		t.Errorf("%d calls", q.Invites())
	}
}

func TestManyCalls(t *testing.T) {
	ctx := testCtx(t)
	p, q := phones(t, func(o *PhoneOptions) {
		o.Incoming = func(in *Incoming) {
			tone := 500 + 100*int(in.RequestUser[0]-'0')
			_, _ = in.Answer(context.Background(), AnswerOptions{Tone: tone})
		}
	})
	var calls []*Call
	for i := range 5 {
		c, err := p.Call(ctx, CallOptions{URI: q.URI(fmt.Sprint(i))})
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	for i, c := range calls {
		if err := c.Hear(ctx, 500+100*i); err != nil {
			t.Error(err)
		}
		if err := c.Hangup(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestAuthorized(t *testing.T) {
	for alg, h := range digests {
		o := PhoneOptions{Username: "gw", Password: "secret", Algorithm: alg}
		uri := "sip:1@127.0.0.1"
		res := h(h("gw:siptest:secret") + ":n:00000001:c:auth:" + h("INVITE:"+uri))
		m := &message{start: "INVITE " + uri + " SIP/2.0"}
		m.add("Proxy-Authorization", `Digest username="gw", realm="siptest", nonce="n", uri="`+uri+`", qop=auth, nc=00000001, cnonce="c", response="`+res+`"`)
		if !authorized(o, m, "n") || authorized(o, m, "other") {
			t.Errorf("%s: nonce not told apart", alg)
		}
		if o.Password = "wrong"; authorized(o, m, "n") {
			t.Errorf("%s: a wrong password is right", alg)
		}
	}
	p, q := phones(t, func(o *PhoneOptions) { o.Username, o.Password = "gw", "secret" })
	var se *StatusError
	if _, err := p.Call(testCtx(t), CallOptions{URI: q.URI("1")}); !errors.As(err, &se) || se.Code != 407 || q.Invites() != 0 {
		t.Errorf("%v, %d calls", err, q.Invites())
	}
}
