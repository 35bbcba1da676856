package prosodytest

import (
	"net/http"
	"strings"
	"testing"
)

func TestStartKillRestart(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{Accounts: map[string]string{"focus": "pw"}})
	get := func() error {
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(s.BOSHURL())
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := get(); err == nil {
		t.Fatal("answers after Kill")
	}
	s.Restart()
	if err := get(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Log(), "Activated service 'component'") {
		t.Errorf("log says nothing of the component:\n%s", s.Log())
	}
}
