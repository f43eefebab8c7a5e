package browsertest

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/page"
)

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func TestPage(t *testing.T) {
	browser := browser(t)
	s := serve(t, every())
	key := func(name string) string { return s.URL + "/keys/" + url.PathEscape(name) }

	t.Run("every state, on every screen", func(t *testing.T) {
		for name, l := range map[string]look{
			"desktop-light": desktop, "desktop-dark": desktop.dark(), "phone-light": phone, "phone-dark": phone.dark(),
			"tablet": {Width: 820, Height: 1100}, "narrow-desktop": {Width: 1100, Height: 800}, "wide": {Width: 2560, Height: 1300},
			"no-script": desktop.noScript(),
		} {
			t.Run(name, func(t *testing.T) {
				v := open(t, browser, l, s.URL+"/")
				v.shoot("overview-" + name)
				v.fits()
				require.Contains(t, v.text("h1"), "2 keys need a person")
				require.EqualValues(t, 19, v.number(`document.querySelectorAll("tbody tr:not(.group)").length`))
				v.quiet(s)
			})
		}
	})

	t.Run("a key's page, on every screen", func(t *testing.T) {
		for name, l := range map[string]look{"desktop-light": desktop, "desktop-dark": desktop.dark(), "phone-light": phone, "phone-dark": phone.dark()} {
			for job, file := range map[string]string{"payments-live": "stuck", "ledger": "running", "billing": "healthy", "image-models": "failed", hostile: "hostile", every().all[11].Job: "long"} {
				t.Run(name+" "+file, func(t *testing.T) {
					v := open(t, browser, l, key(job))
					v.shoot("key-" + file + "-" + name)
					v.fits()
					require.EqualValues(t, 1, v.number(`document.querySelectorAll("h1").length`))
					v.quiet(s)
				})
			}
		}
	})

	t.Run("a hostile name is a text", func(t *testing.T) {
		for _, l := range []look{desktop, desktop.noScript()} {
			for _, address := range []string{s.URL + "/", key(hostile), s.URL + "/?q=" + url.QueryEscape(hostile) + "&state=" + url.QueryEscape(hostile)} {
				v := open(t, browser, l, address)
				require.Zero(t, v.number(`document.querySelectorAll("script, img, iframe, object, embed, b, base, [style], [onerror], [onclick], [onload]").length`))
				var strange []string
				v.eval(`[...document.querySelectorAll("[href], [src], [action]")].filter(e => new URL(e.href?.baseVal ?? e.href ?? e.src ?? e.action, location).origin != location.origin).map(e => e.outerHTML)`, &strange)
				require.Empty(t, strange, "a link leads away")
				var text string
				v.eval("document.documentElement.outerHTML", &text)
				require.False(t, strings.ContainsAny(text, "\u202E\u200B"), "an invisible character is on the page")
				v.quiet(s)
			}
		}
		v := open(t, browser, desktop, s.URL+"/")
		v.follow(chromedp.Evaluate(`[...document.querySelectorAll("tbody th.name a")].find(a => a.textContent.includes("onerror")).click()`, nil))
		require.Contains(t, v.text("h1"), `"><img src=x onerror=alert(1)>`)
		v.quiet(s)
	})

	t.Run("by keyboard", func(t *testing.T) {
		v := open(t, browser, desktop.noScript(), s.URL+"/")
		var stops []string
		focused := func() (what string) {
			v.eval(`(a => a.id || a.getAttribute("class") || a.getAttribute("name") || a.textContent)(document.activeElement)`, &what)
			return what
		}
		for range 40 {
			require.NoError(t, chromedp.Run(v.ctx, chromedp.KeyEvent(kb.Tab)))
			stops = append(stops, focused())
			if strings.Contains(stops[len(stops)-1], "ledger") {
				break
			}
		}
		all := strings.Join(stops, "\n")
		require.Equal(t, "skip", stops[0], "the first stop skips to the content")
		for _, want := range []string{"brand", "person", "running", "q", "state", "Filter", "payments-live", "ledger"} {
			require.Contains(t, all, want)
		}
		require.Greater(t, v.number(`parseFloat(getComputedStyle(document.activeElement).outlineWidth)`), 1.0, "what has the focus shows it")
		v.follow(chromedp.KeyEvent(kb.Enter))
		require.Equal(t, "ledger", v.text("h1"))
		v.quiet(s)
	})

	t.Run("the filter is a form", func(t *testing.T) {
		v := open(t, browser, desktop.noScript(), s.URL+"/")
		v.follow(chromedp.Focus("#q", chromedp.ByQuery), chromedp.KeyEvent("acedata"), chromedp.KeyEvent(kb.Enter))
		require.EqualValues(t, 3, v.number(`document.querySelectorAll("tbody tr:not(.group)").length`))
		v.shoot("overview-filtered")
		v.follow(chromedp.Click(".counts a.failed", chromedp.ByQuery))
		require.EqualValues(t, 2, v.number(`document.querySelectorAll("tbody tr:not(.group)").length`))
		v.follow(chromedp.Focus("#q", chromedp.ByQuery), chromedp.KeyEvent("no such key"), chromedp.Click("button", chromedp.ByQuery))
		require.Contains(t, v.text("main"), "No key matches")
		v.shoot("overview-no-match")
		v.follow(chromedp.Click(".nothing a", chromedp.ByQuery))
		require.EqualValues(t, 19, v.number(`document.querySelectorAll("tbody tr:not(.group)").length`))
		v.quiet(s)
	})

	t.Run("a reader of the screen", func(t *testing.T) {
		v := open(t, browser, phone, s.URL+"/")
		var landmarks []string
		v.eval(`["header", "nav", "main", "footer", "form[role=search]", "table[role=table]", "th[role=columnheader]", "th[role=rowheader]", "td[role=cell]"].filter(s => !document.querySelector(s))`, &landmarks)
		require.Empty(t, landmarks)
		var silent []string
		v.eval(`[...document.querySelectorAll("svg.mark, svg.bar")].filter(e => e.getAttribute("aria-hidden") != "true" || !e.parentElement.innerText.trim()).map(e => e.parentElement.outerHTML)`, &silent)
		require.Empty(t, silent, "every mark and every bar has a text beside it")
		var nameless []string
		v.eval(`[...document.querySelectorAll("a, button, input:not([type=hidden]), select")].filter(e => !(e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)`, &nameless)
		require.Empty(t, nameless, "every control has a name")
	})

	t.Run("on paper", func(t *testing.T) {
		v := open(t, browser, look{Width: 1000, Height: 1400}, s.URL+"/")
		require.NoError(t, chromedp.Run(v.ctx, emulation.SetEmulatedMedia().WithMedia("print")))
		v.shoot("overview-print")
		v.fits()
		require.Equal(t, "none", func() (d string) { v.eval(`getComputedStyle(document.querySelector(".filter")).display`, &d); return d }())
	})
}

func TestOtherPages(t *testing.T) {
	browser := browser(t)
	t.Run("no keys", func(t *testing.T) {
		s := serve(t, new(fleet))
		for name, l := range map[string]look{"empty": desktop, "empty-phone-dark": phone.dark()} {
			v := open(t, browser, l, s.URL+"/")
			v.shoot(name)
			v.fits()
			require.Contains(t, v.text("main"), "keywright.yaml")
			v.quiet(s)
		}
	})
	t.Run("all is well", func(t *testing.T) {
		f := every()
		f.all = f.all[12:]
		s := serve(t, f)
		v := open(t, browser, desktop, s.URL+"/")
		v.shoot("healthy")
		require.Equal(t, "All 7 keys are healthy", strings.TrimSpace(v.text("h1")))
		v.quiet(s)
	})
	t.Run("ten thousand keys", func(t *testing.T) {
		s := serve(t, many(10_000))
		for name, l := range map[string]look{"many": desktop, "many-phone": phone} {
			v := open(t, browser, l, s.URL+"/?page=2")
			v.shoot(name)
			v.fits()
			require.EqualValues(t, 100, v.number(`document.querySelectorAll("tbody tr:not(.group)").length`))
			v.follow(chromedp.Click(`a[rel="last"]`, chromedp.ByQuery))
			require.Contains(t, v.text(".pages p"), "10,000")
			v.quiet(s)
		}
	})
	t.Run("the database is away", func(t *testing.T) {
		f := every()
		f.away.Store(true)
		s := serve(t, f)
		v := open(t, browser, desktop, s.URL+"/")
		v.shoot("away")
		require.Contains(t, v.text("main"), "database does not answer")
	})
	t.Run("no such page", func(t *testing.T) {
		s := serve(t, every())
		v := open(t, browser, phone.dark(), s.URL+"/keys/nobody")
		v.shoot("not-found")
		v.fits()
		require.Contains(t, v.text("main"), "404")
	})
	t.Run("a token in the dialog of the browser", func(t *testing.T) {
		const canary = "canary-page-token-0123456789"
		s := serve(t, every(), page.WithToken(keywright.NewSecret(canary)))
		address, err := url.Parse(s.URL + "/")
		require.NoError(t, err)
		address.User = url.UserPassword("me", canary)
		v := open(t, browser, desktop, address.String())
		require.Contains(t, v.text("body"), "payments-live")
		v.follow(chromedp.Click(".keys .name a", chromedp.ByQuery))
		require.Equal(t, "payments-live", v.text("h1"), "the browser gives the token again")
		var text string
		v.eval("document.documentElement.outerHTML", &text)
		require.NotContains(t, text, canary)
	})
}
