package jicofo

import (
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"
)

const capsNode = "http://jitsi.org/jicofo"

// ownInfo is the answer to disco#info, without a node.
func ownInfo() *element {
	q := el(nsDisco, "query").add(el("", "identity", "category", "component", "type", "conference", "name", "Jitsi conference focus"))
	for _, f := range ownFeatures {
		q.add(el("", "feature", "var", f))
	}
	return q
}

// capsHash is the verification string of XEP-0115 §5.1, extended forms
// included.
func capsHash(query *element) string {
	var ids, features, forms []string
	for _, k := range query.Kids {
		switch k.Name {
		case "identity":
			ids = append(ids, k.attr("category")+"/"+k.attr("type")+"/"+k.attr("lang")+"/"+k.attr("name"))
		case "feature":
			features = append(features, k.attr("var"))
		case "x":
			forms = append(forms, formString(k))
		}
	}
	slices.Sort(forms)
	sum := sha1.Sum([]byte(joinSorted(ids) + joinSorted(features) + strings.Join(forms, "")))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// joinSorted sorts strings, then ends each with "<": the other way round
// "muc#rooms" would come before "muc".
func joinSorted(s []string) string {
	slices.Sort(s)
	var b strings.Builder
	for _, x := range s {
		b.WriteString(x + "<")
	}
	return b.String()
}

func formString(x *element) string {
	var form string
	var names []string
	values := map[string]string{}
	for _, f := range x.children("field") {
		var vs []string
		for _, v := range f.children("value") {
			vs = append(vs, v.Text)
		}
		name := f.attr("var")
		if name == "FORM_TYPE" {
			form = joinSorted(vs)
			continue
		}
		names = append(names, name)
		values[name] = joinSorted(vs)
	}
	slices.Sort(names)
	for _, n := range names {
		form += n + "<" + values[n]
	}
	return form
}

// discover finds out what a member can do: from the capabilities it announced
// (XEP-0115), if they were verified before, or by asking.
func (j *Jicofo) discover(c *conference, p *participant) {
	key := ""
	if p.capsNode != "" {
		key = p.capsNode + "#" + p.capsVer
	}
	if f, ok := j.caps[key]; ok && key != "" {
		j.discovered(c, p, f)
		return
	}
	q := el(nsDisco, "query", "node", key)
	j.request(c.focusJID(), c.occupant(p.nick), "get", q, j.o.DiscoTimeout, func(reply *element) {
		if c.gone || p.gone {
			return
		}
		query := reply.child(nsDisco, "query")
		if reply == nil || reply.attr("type") != "result" || query == nil {
			c.problem("%s did not answer disco#info", p.nick)
			j.discovered(c, p, defaultFeatures)
			return
		}
		features := []string{}
		for _, f := range query.children("feature") {
			features = append(features, f.attr("var"))
		}
		if key != "" {
			if capsHash(query) == p.capsVer {
				j.caps[key] = features
			} else {
				c.problem("%s announced capabilities that its disco#info does not have", p.nick)
			}
		}
		j.discovered(c, p, features)
	})
}

func (j *Jicofo) discovered(c *conference, p *participant, features []string) {
	p.features, p.discovered = features, true
	j.inviteAll(c)
}

func (p *participant) has(feature string) bool { return slices.Contains(p.features, feature) }
