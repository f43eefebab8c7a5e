package page

import (
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/loopback"
)

// headers are those of every answer.
func (p *Page) headers(h http.Header) {
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// admit reports whether the request may be answered. If not it has been.
func (p *Page) admit(w http.ResponseWriter, r *http.Request) bool {
	no := refusalOf(p.token, r)
	if no == nil {
		return true
	}
	if no.wrong && p.tell() {
		p.log.LogAttrs(r.Context(), slog.LevelWarn, "the status page was asked for with a wrong token", slog.String("remote", r.RemoteAddr))
	}
	no.challenge(w.Header())
	p.message(w, r, no.status, no.title, no.text)
	return false
}

// tell reports whether a wrong token is to be logged: one in a minute, so that
// who guesses does not fill the log.
func (p *Page) tell() bool {
	now, last := p.now().Unix(), p.told.Load()
	return (now < last || now >= last+60) && p.told.CompareAndSwap(last, now)
}

// Guard lets those requests through to next that a [Page] with the token would
// answer, or without one if it is zero: for what is served beside the page, such
// as metrics.
func Guard(token keywright.Secret, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if no := refusalOf(token, r); no != nil {
			no.challenge(w.Header())
			http.Error(w, no.title+". "+no.text, no.status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refusal is why a request is not answered.
type refusal struct {
	status      int
	title, text string
	wrong       bool // it came with another token
}

// challenge asks for a token, if that is what is missing.
func (no *refusal) challenge(h http.Header) {
	if no.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="keywright", charset="UTF-8"`)
	}
}

// refusalOf returns why a request is not answered; nil: it is.
func refusalOf(token keywright.Secret, r *http.Request) *refusal {
	if token.IsZero() {
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
			return &refusal{status: http.StatusForbidden, title: "For this machine only", text: "Without a token the page is served on a loopback address."}
		}
		if !loopback.Is(hostOf(r.Host)) {
			return &refusal{status: http.StatusMisdirectedRequest, title: "For this machine only", text: "Without a token the page is served under a name of this machine, such as localhost or 127.0.0.1."}
		}
		return nil
	}
	given, there := credential(r)
	if there && token.Equal(given) {
		return nil
	}
	return &refusal{status: http.StatusUnauthorized, title: "A token is needed", text: "Give it as the password, under any user name.", wrong: there}
}

// credential returns the token that came with a request.
func credential(r *http.Request) (token keywright.Secret, ok bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return keywright.NewSecret(password), true
	}
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return keywright.Secret{}, false
	}
	return keywright.NewSecret(strings.TrimSpace(text)), true
}

// hostOf takes the port and brackets off a Host header.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			return inner
		}
	}
	return host
}
