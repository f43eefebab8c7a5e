// Package browsertest holds tests of the status page in a real Chromium, if one
// is on this machine. It is a module of its own, so that nobody who uses package
// jobs downloads what drives a browser.
package browsertest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/page"
)

// screenshots names a directory that pictures are put into; empty: none are
// taken.
const screenshots = "KEYWRIGHT_SCREENSHOTS"

// browser starts a Chromium that reaches loopback addresses alone.
func browser(t *testing.T) context.Context {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("no Chromium on this machine: install chromium to run the page in a browser")
	}
	dir, err := os.MkdirTemp("", "keywright-chromium-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a process of Chromium's may still write
	opts := append([]chromedp.ExecAllocatorOption(nil), chromedp.DefaultExecAllocatorOptions[:]...)
	opts = append(opts, chromedp.ExecPath(program), chromedp.UserDataDir(dir), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-first-run", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Run(ctx), "the browser starts")
	return ctx
}

// site serves a page over a fleet, and keeps the requests that came.
type site struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
}

func serve(t *testing.T, f *fleet, opts ...page.Option) *site {
	t.Helper()
	p, err := page.New(f, f, append([]page.Option{page.WithClock(func() time.Time { return now })}, opts...)...)
	require.NoError(t, err)
	s := new(site)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.RequestURI)
		s.mu.Unlock()
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// tab is a tab of the browser, with what it has complained of.
type tab struct {
	t    *testing.T
	ctx  context.Context
	mu   sync.Mutex
	bad  []string // dialogs, exceptions, console messages, violations of the policy
	urls []string // that were asked for
}

// look is how a page is looked at.
type look struct {
	Width, Height int64
	Dark          bool
	NoScript      bool
}

var (
	desktop = look{Width: 1440, Height: 900}
	phone   = look{Width: 360, Height: 780}
)

func (l look) dark() look     { l.Dark = true; return l }
func (l look) noScript() look { l.NoScript = true; return l }

// open opens a tab at an address.
func open(t *testing.T, browser context.Context, l look, address string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	v := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(e any) {
		v.mu.Lock()
		defer v.mu.Unlock()
		switch e := e.(type) {
		case *cdppage.EventJavascriptDialogOpening:
			v.bad = append(v.bad, "dialog: "+e.Message)
			go func() { _ = chromedp.Run(ctx, cdppage.HandleJavaScriptDialog(true)) }()
		case *runtime.EventExceptionThrown:
			v.bad = append(v.bad, "exception: "+e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			v.bad = append(v.bad, "console: "+string(e.Type))
		case *log.EventEntryAdded:
			v.bad = append(v.bad, "log: "+e.Entry.Text+" "+e.Entry.URL)
		case *network.EventRequestWillBeSent:
			v.urls = append(v.urls, e.Request.URL)
		}
	})
	scheme := "light"
	if l.Dark {
		scheme = "dark"
	}
	require.NoError(t, chromedp.Run(ctx, network.Enable(), log.Enable(),
		chromedp.EmulateViewport(l.Width, l.Height),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		emulation.SetScriptExecutionDisabled(l.NoScript),
		chromedp.Navigate(address)))
	return v
}

// eval evaluates an expression in the page: a debugger may, where scripts may
// not.
func (v *tab) eval(expression string, result any) {
	v.t.Helper()
	require.NoError(v.t, chromedp.Run(v.ctx, chromedp.Evaluate(expression, result)), expression)
}

func (v *tab) text(selector string) (text string) {
	v.t.Helper()
	v.eval("document.querySelector("+quote(selector)+").innerText", &text)
	return text
}

func (v *tab) number(expression string) (n float64) {
	v.t.Helper()
	v.eval(expression, &n)
	return n
}

// follow does what a person does, and waits for the page that comes of it.
func (v *tab) follow(actions ...chromedp.Action) {
	v.t.Helper()
	_, err := chromedp.RunResponse(v.ctx, actions...)
	require.NoError(v.t, err)
}

// quiet fails if anything has run, or was asked of anybody but the site.
func (v *tab) quiet(s *site) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	require.Empty(v.t, v.bad, "the browser complains of nothing")
	require.NotEmpty(v.t, v.urls)
	for _, address := range v.urls {
		u, err := url.Parse(address)
		require.NoError(v.t, err)
		require.Equal(v.t, s.Listener.Addr().String(), u.Host, "a request went to %s", address)
	}
}

// fits fails if the document is wider than the window.
func (v *tab) fits() {
	v.t.Helper()
	var wide []string
	v.eval(`[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 && getComputedStyle(e).position != "absolute").map(e => e.tagName + "." + e.getAttribute("class") + " " + e.textContent.slice(0, 40)).slice(0, 5)`, &wide)
	require.LessOrEqual(v.t, v.number("document.documentElement.scrollWidth"), v.number("innerWidth"), "the document scrolls sideways: %q", wide)
	require.Empty(v.t, wide, "stands out of the window")
}

// shoot takes a picture of the whole page, if pictures are asked for.
func (v *tab) shoot(name string) {
	v.t.Helper()
	dir := os.Getenv(screenshots)
	if dir == "" {
		return
	}
	var png []byte
	require.NoError(v.t, chromedp.Run(v.ctx, chromedp.FullScreenshot(&png, 100)))
	require.NoError(v.t, os.MkdirAll(dir, 0o755))
	require.NoError(v.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}
