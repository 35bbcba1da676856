package sip

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// unserved answers a method that is not served here: those that can be named
// are not allowed, the others unknown.
func unserved(m sip.RequestMethod) int {
	switch m {
	case sip.REGISTER, sip.SUBSCRIBE, sip.NOTIFY, sip.REFER, sip.MESSAGE, sip.PRACK, sip.UPDATE, sip.PUBLISH:
		return 405
	}
	return 501
}

// invalid says what is wrong with a request as such: a response code and why.
// 0: nothing.
func invalid(req *sip.Request) (int, error) {
	for _, name := range []string{"From", "To", "Call-ID", "CSeq"} {
		if n := count(req, name); n != 1 {
			return 400, fmt.Errorf("%d %s header fields", n, name)
		}
	}
	via, cseq := req.Via(), req.CSeq()
	switch {
	case via == nil || via.Host == "":
		return 400, errors.New("no Via")
	case req.From() == nil || req.To() == nil || req.CallID() == nil || cseq == nil:
		return 400, errors.New("unreadable header fields")
	case req.SipVersion != "SIP/2.0":
		return 505, errors.New("version")
	case strings.TrimSpace(string(cseq.MethodName)) != string(req.Method):
		return 400, errors.New("method in CSeq differs")
	case param(req.From().Params, "tag") == "" && !legacy(req):
		return 400, errors.New("no From tag")
	case req.Recipient.Scheme != "sip" && req.Recipient.Scheme != "sips":
		return 416, errors.New("URI scheme")
	}
	return 0, nil
}

// malformed counts a message that could not be used and answers it, without a
// transaction, where enough of a request could be read.
func (u *UA) malformed(f flow, req *sip.Request, code int, err error) {
	u.stats.malformed.Add(1)
	u.note("malformed message", "source", f.peer, "err", err)
	if req == nil || req.Method == sip.ACK {
		return
	}
	to := f.peer
	astray := func(h sip.Header) bool { un, ok := h.(*unread); return ok && un.name == "via" }
	if !slices.ContainsFunc(req.Headers(), astray) { // else it does not say where to
		if req.Via() == nil {
			return
		}
		to = responseAddr(f, req)
	}
	_ = f.send(u.response(f, req, reply{code: code, tag: token(10), headers: []Header{u.warning(f, err.Error())}}), to)
}

// refuse gives a stranger the answer that strangers get, without a transaction
// or a dialog. Who has heard from us already is not met with silence.
func (u *UA) refuse(f flow, s source, req *sip.Request) {
	u.offend(f.peer.Addr())
	if code, err := invalid(req); code != 0 || req.Method == sip.ACK || u.o.UnknownSource == "drop" && !s.peer {
		u.stats.dropped.Add(1)
		u.note("message from an unknown source dropped", "source", f.peer, "err", err)
		return
	}
	u.stats.refused.Add(1)
	u.note("request from an unknown source refused", "source", f.peer, "method", req.Method)
	u.answerStranger(f, req, "unknown source")
}

func (u *UA) answerStranger(f flow, req *sip.Request, why string) {
	_ = f.send(u.response(f, req, reply{code: 403, tag: token(10), headers: Reason{Cause: 21, Text: why}.headers()}), responseAddr(f, req))
}

func (u *UA) warning(f flow, text string) Header {
	host, port := f.sentBy()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return Header{"Warning", fmt.Sprintf("399 %s:%d %s", host, port, quote(text))}
}

// handleRequest takes a request from a source that may speak.
func (u *UA) handleRequest(f flow, req *sip.Request) {
	if code, err := invalid(req); code != 0 {
		u.malformed(f, req, code, err)
		return
	}
	if req.Method == sip.ACK {
		u.handleACK(req)
		return
	}
	tx, repeated, merged := u.newServerTx(f, req)
	switch {
	case repeated != nil:
		repeated.repeated()
		return
	case tx == nil:
		u.note("too many transactions", "source", f.peer)
		return
	}
	respond := func(code int, hs ...Header) {
		_ = tx.respond(code, u.response(f, req, reply{code: code, tag: token(10), headers: hs}))
	}
	if merged {
		respond(482)
		return
	}
	if req.Method == sip.CANCEL {
		u.handleCancel(tx, req)
		return
	}
	policy := u.o.Policy(f.trunk)
	if req.Method != sip.BYE { // a BYE always ends the call
		if un := policy.unsupported(req); un != "" {
			respond(420, Header{"Unsupported", un})
			return
		}
	}
	if param(req.To().Params, "tag") != "" {
		d := u.dialog(req)
		if d == nil {
			respond(481)
			return
		}
		d.request(tx, req)
		return
	}
	switch req.Method {
	case sip.INVITE:
		u.handleInvite(tx, req)
	case sip.OPTIONS:
		u.handleOptions(tx, req)
	case sip.BYE, sip.INFO, sip.UPDATE:
		respond(481)
	case sip.PRACK:
		if policy.Reliable == ReliableOff {
			respond(405, Header{"Allow", policy.allow()})
			return
		}
		respond(481)
	default:
		respond(unserved(req.Method), Header{"Allow", policy.allow()})
	}
}

func (u *UA) handleOptions(tx *serverTx, req *sip.Request) {
	ready, after := u.o.Ready()
	hs := append(u.o.Policy(tx.f.trunk).headers(), Header{"Accept", contentSDP}, Header{"Accept-Encoding", "identity"})
	code := 200
	if !ready {
		code = 503
		hs = append(hs, retryAfter(after))
	}
	_ = tx.respond(code, u.response(tx.f, req, reply{code: code, tag: token(10), headers: hs}))
}

func retryAfter(d time.Duration) Header {
	return Header{"Retry-After", strconv.Itoa(max(1, int((d+time.Second-1)/time.Second)))}
}

// session returns the session description of a message, nil if it has none.
// A code other than 0 says why the body cannot be taken.
func session(m message) (sdp []byte, code int, h Header) {
	body := m.Body()
	if len(body) == 0 {
		return nil, 0, h
	}
	if enc := tokens(headerValues(m, "Content-Encoding")); len(enc) > 0 && (len(enc) > 1 || enc[0] != "identity") {
		return nil, 415, Header{"Accept-Encoding", "identity"}
	}
	ct := headerValues(m, "Content-Type")
	if len(ct) != 1 {
		return nil, 400, h
	}
	media, params, err := mime.ParseMediaType(ct[0])
	if err != nil && media == "" {
		return nil, 415, Header{"Accept", contentSDP}
	}
	switch media {
	case contentSDP:
		return body, 0, h
	case "multipart/mixed", "multipart/alternative":
		if b := multipartSDP(body, params["boundary"]); b != nil {
			return b, 0, h
		}
	}
	return nil, 415, Header{"Accept", contentSDP}
}

// multipartSDP returns the session description of a multipart body (RFC
// 5621), as gateways to ISUP send it. nil: there is none.
func multipartSDP(body []byte, boundary string) []byte {
	if boundary == "" {
		return nil
	}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for range 8 {
		p, err := r.NextRawPart()
		if err != nil {
			return nil
		}
		if media, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type")); media == contentSDP {
			b, err := io.ReadAll(p) // bounded by the message
			if err != nil {
				return nil
			}
			return b
		}
	}
	return nil
}

// takesSDP reports whether a request takes an answer with a session description
// (RFC 3261 §20.1).
func takesSDP(req *sip.Request) bool {
	values := headerValues(req, "Accept")
	for _, t := range tokens(values) {
		t, _, _ = strings.Cut(t, ";")
		switch strings.TrimSpace(t) {
		case contentSDP, "application/*", "*/*":
			return true
		}
	}
	return len(values) == 0
}

// handleInvite begins a dialog.
func (u *UA) handleInvite(tx *serverTx, req *sip.Request) {
	respond := func(code int, hs ...Header) {
		_ = tx.respond(code, u.response(tx.f, req, reply{code: code, tag: token(10), headers: hs}))
	}
	sdp, code, h := session(req)
	if code == 0 {
		code, h = u.tooSmall(req)
	}
	if code != 0 {
		respond(code, h)
		return
	}
	if !takesSDP(req) {
		respond(406)
		return
	}
	var old *Dialog
	if replaces := headerValues(req, "Replaces"); len(replaces) > 0 {
		if old, code = u.replaced(tx.f.trunk, replaces); code != 0 {
			respond(code)
			return
		}
	}
	d, err := u.newDialog(tx, req, sdp)
	switch {
	case errors.Is(err, errTooMany):
		respond(503, append(Reason{Cause: 42, Text: "too many calls"}.headers(), retryAfter(time.Duration(5+rand.IntN(10))*time.Second))...)
		return
	case err != nil:
		respond(400, u.warning(tx.f, err.Error()))
		return
	}
	_ = tx.respond(100, u.response(tx.f, req, reply{code: 100}))
	if old != nil {
		old.replace(d)
		return
	}
	go u.o.OnInvite(d) // the owner's, so Close does not wait for it
}

// handleCancel answers a CANCEL (RFC 3261 §9.2). tx is the CANCEL's own. Who
// is not of the INVITE's trunk, nor at its address, has only guessed the branch.
func (u *UA) handleCancel(tx *serverTx, req *sip.Request) {
	u.mu.Lock()
	invite := u.txs[txKey(req, sip.INVITE)]
	u.mu.Unlock()
	if invite == nil || !tx.f.near(invite.f) {
		_ = tx.respond(481, u.response(tx.f, req, reply{code: 481, tag: token(10)}))
		return
	}
	invite.mu.Lock()
	tag, cancel := invite.tag, invite.cancel
	invite.mu.Unlock()
	if tag == "" {
		tag = token(10)
	}
	_ = tx.respond(200, u.response(tx.f, req, reply{code: 200, tag: tag}))
	if cancel != nil {
		cancel(parseReason(req))
	}
}

// handleACK takes an ACK: to the transaction that sent a failure, else to the
// dialog whose 2xx it confirms.
func (u *UA) handleACK(req *sip.Request) {
	u.mu.Lock()
	tx := u.txs[txKey(req, sip.INVITE)]
	u.mu.Unlock()
	if tx != nil && tx.acked() {
		return
	}
	if d := u.dialog(req); d != nil {
		d.acked(req)
	}
}
