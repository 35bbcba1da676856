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
			ids = append(ids, k.attr("category")+"/"+k.attr("type")+"/"+k.attr("lang")+"/"+k.attr("name")+"<")
		case "feature":
			features = append(features, k.attr("var")+"<")
		case "x":
			forms = append(forms, formString(k))
		}
	}
	slices.Sort(ids)
	slices.Sort(features)
	slices.Sort(forms)
	s := strings.Join(ids, "") + strings.Join(features, "") + strings.Join(forms, "")
	sum := sha1.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func formString(x *element) string {
	var form string
	var fields []string
	for _, f := range x.children("field") {
		var values []string
		for _, v := range f.children("value") {
			values = append(values, v.Text+"<")
		}
		slices.Sort(values)
		if f.attr("var") == "FORM_TYPE" {
			form = strings.Join(values, "")
			continue
		}
		fields = append(fields, f.attr("var")+"<"+strings.Join(values, ""))
	}
	slices.Sort(fields)
	return form + strings.Join(fields, "")
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
