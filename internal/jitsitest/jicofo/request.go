package jicofo

import (
	"maps"
	"slices"
	"strconv"
)

// ConferenceRequest is a received conference IQ.
type ConferenceRequest struct {
	From, Room, MachineUID, SessionID, Token string
	Properties                               map[string]string
	// Attempt counts the requests of this sender for this room from 1.
	Attempt int
}

// Verdict is the answer to a conference request.
type Verdict struct {
	Kind VerdictKind
	// Code and Text go with ReservationError.
	Code int
	Text string
	// VNode goes with Ready.
	VNode string
}

// VerdictKind is a kind of answer to a conference request.
type VerdictKind int

// The answers to a conference request.
const (
	// Ready joins the room and answers ready='true'.
	Ready VerdictKind = iota
	// NotReady answers ready='false' and does nothing.
	NotReady
	// NotAuthorized: the room does not exist and the sender may not make it.
	NotAuthorized
	// NotAcceptable: machine-uid is missing.
	NotAcceptable
	// SessionInvalid: not-acceptable with session-invalid.
	SessionInvalid
	// ReservationError carries Code and Text.
	ReservationError
	// ServiceUnavailable is what the server's proxy says without a Jicofo.
	ServiceUnavailable
	// NoReply leaves the request unanswered.
	NoReply
)

// maxRequests bounds what Requests returns.
const maxRequests = 10000

func (j *Jicofo) handleConferenceRequest(iq, payload *element) {
	r := ConferenceRequest{
		From: iq.attr("from"), Room: payload.attr("room"), MachineUID: payload.attr("machine-uid"),
		SessionID: payload.attr("session-id"), Token: payload.attr("token"),
		Properties: map[string]string{}, Attempt: 1,
	}
	for _, p := range payload.children("property") {
		r.Properties[p.attr("name")] = p.attr("value")
	}
	for _, old := range j.requests {
		if old.From == r.From && old.Room == r.Room {
			r.Attempt++
		}
	}
	if len(j.requests) < maxRequests {
		j.requests = append(j.requests, r)
	}
	if r.Room == "" || localOf(r.Room) == "" || iq.attr("type") != "set" {
		j.replyError(iq, "modify", "bad-request", "")
		return
	}
	v := Verdict{}
	if j.policy != nil {
		v = j.policy(r)
	}
	switch v.Kind {
	case Ready:
		j.join(r.Room, func(joined bool) {
			j.reply(iq, j.conferenceReply(r.Room, joined, v.VNode))
		})
	case NotReady:
		j.reply(iq, j.conferenceReply(r.Room, false, ""))
	case NotAuthorized:
		j.replyError(iq, "auth", "not-authorized", "not authorized user domain")
	case NotAcceptable:
		j.replyError(iq, "modify", "not-acceptable", "machine-uid is missing")
	case SessionInvalid:
		j.replyError(iq, "modify", "not-acceptable", "", el(nsFocus, "session-invalid"))
	case ReservationError:
		j.replyError(iq, "cancel", "undefined-condition", v.Text,
			el(nsFocus, "reservation-error", "error-code", strconv.Itoa(v.Code)))
	case ServiceUnavailable:
		j.replyError(iq, "cancel", "service-unavailable", "")
	case NoReply:
	}
}

func (j *Jicofo) conferenceReply(room string, ready bool, vnode string) *element {
	user := j.user
	if vnode != "" {
		user = "focus@" + vnode + "." + j.o.Component
	}
	r := el(nsFocus, "conference", "room", room, "ready", strconv.FormatBool(ready), "focusjid", user, "vnode", vnode)
	props := map[string]string{
		"authentication": "false", "sipGatewayEnabled": strconv.FormatBool(j.o.Brewery != ""), "visitors-supported": "false",
	}
	maps.Copy(props, j.o.Properties)
	for _, k := range slices.Sorted(maps.Keys(props)) {
		r.add(el("", "property", "name", k, "value", props[k]))
	}
	return r
}
