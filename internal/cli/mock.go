package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/keywrighttest"
)

func (a *app) mockGroup() *cobra.Command {
	return group("mock", "Run a fake provider, for trying things and for tests", a.mockRicloud(), a.mockAceData())
}

func (a *app) mockRicloud() *cobra.Command {
	c := &cobra.Command{
		Use: "ricloud", Short: "Run a fake ricloud",
		Long: `Run a fake ricloud with one organisation, which is still unconfigured, and one
active key, whose id is 1.` + mockHelp("key.list", ricloudOperations),
		Example: `keywright mock ricloud
keywright mock ricloud --env-file fake.env --seed-keys 100 --fault key.rotate:after:drop`,
	}
	m := newMock(c, a, "keys", ricloudOperations)
	f := c.Flags()
	m.variant(f, "many-grace-tokens", "accept every old token of a key for its six hours, not only the last one", keywrighttest.WithManyGraceTokens())
	m.variant(f, "inactive-forbidden", "answer 403, not 401, to keys that are not active", keywrighttest.WithInactiveForbidden())
	m.variant(f, "inclusive-cursor", "begin a page with the item that after_id names, not behind it", keywrighttest.WithInclusiveCursor())
	m.variant(f, "empty-delete", "answer a delete with 204 and nothing", keywrighttest.WithEmptyDelete())
	m.variant(f, "older-shapes", "send what older versions of the API sent", keywrighttest.WithOlderShapes())
	m.variant(f, "nested-references", "send whole configs in place of their ids", keywrighttest.WithNestedReferences())
	m.variant(f, "text-ids", "send numeric ids as strings", keywrighttest.WithTextIDs())
	m.variant(f, "webhook-required", "keep the organisation unconfigured until it has a valid webhook config, too", keywrighttest.WithWebhookRequired())
	valued(m, f, "test-result", "code", "let every test of a config fail with `CODE`", parseWord, func(code string) keywrighttest.Option {
		return keywrighttest.WithTestResult(func(map[string]any) string { return code })
	})
	valued(m, f, "test-delay", "duration", "let a test of a config take `DURATION`", parseDuration, keywrighttest.WithTestDelay)
	valued(m, f, "delivery-delay", "duration", "try again to deliver an event after `DURATION`, not after 1s, 5s, 30s and 2m", parseDuration,
		func(d time.Duration) keywrighttest.Option { return keywrighttest.WithDeliveryDelays(d) })
	c.RunE = func(*cobra.Command, []string) error {
		if err := m.prepare(); err != nil {
			return err
		}
		fake, err := keywrighttest.NewRicloud(m.options...)
		if err != nil {
			return usage("--address: %s", strings.TrimPrefix(err.Error(), "keywrighttest: "))
		}
		defer fake.Close()
		fake.AddKeys(m.seed)
		fake.Inject(m.faults...)
		return m.serve(fake, mocked{URL: fake.URL(), Provider: "ricloud", Token: fake.Token()}, "RICLOUD_URL", "RICLOUD_TOKEN")
	}
	return c
}

func (a *app) mockAceData() *cobra.Command {
	c := &cobra.Command{
		Use: "acedata", Short: "Run a fake Ace Data Cloud",
		Long: `Run a fake Ace Data Cloud with one user, who has a platform token and two
applications without credentials. See their ids with --output json.` + mockHelp("credential.list", aceDataOperations),
		Example: `keywright mock acedata --output json
keywright mock acedata --env-file fake.env --seed-credentials 10 --fault credential.create:after:drop`,
	}
	m := newMock(c, a, "credentials", aceDataOperations)
	f := c.Flags()
	valued(m, f, "no-rotate", "status", "answer a rotation with `STATUS`: 404 or 405", func(s string) (int, error) {
		if s != "404" && s != "405" {
			return 0, usage("want 404 or 405")
		}
		return strconv.Atoi(s)
	}, keywrighttest.WithoutRotate)
	m.variant(f, "results", `call the items of a list "results"`, keywrighttest.WithResults())
	m.variant(f, "nulls-refused", "refuse null for limited_amount, expired_at and host in a create", keywrighttest.WithNullsRefused())
	m.variant(f, "superuser", "let the user see everybody's objects", keywrighttest.WithSuperuser())
	m.variant(f, "me-refused", `refuse the user id "me" in lists of credentials`, keywrighttest.WithMeRefused())
	c.RunE = func(*cobra.Command, []string) error {
		if err := m.prepare(); err != nil {
			return err
		}
		fake, err := keywrighttest.NewAceData(m.options...)
		if err != nil {
			return usage("--address: %s", strings.TrimPrefix(err.Error(), "keywrighttest: "))
		}
		defer fake.Close()
		fake.AddCredentials(m.seed)
		fake.Inject(m.faults...)
		application, proxy := fake.ApplicationID(), fake.ProxyApplicationID()
		return m.serve(fake, mocked{
			URL: fake.URL(), Provider: "acedata", Token: fake.Token(), Application: &application, ProxyApplication: &proxy,
		}, "PLATFORM_API_BASE_URL", "ACEDATACLOUD_PLATFORM_TOKEN")
	}
	return c
}

// mock is a fake that is to be run.
type mock struct {
	a       *app
	options []keywrighttest.Option
	faults  []keywrighttest.Fault
	seed    int
	envFile string
}

// mocked is what is printed of a fake. Its token is no secret.
type mocked struct {
	URL              string  `json:"url"`
	Provider         string  `json:"provider"`
	Token            string  `json:"token"`
	Application      *string `json:"application"`       // of Ace Data: its credentials have tokens
	ProxyApplication *string `json:"proxy_application"` // of Ace Data: takes one credential, with a password
}

// newMock defines the flags that both fakes have. more says what there can be
// more of at the start.
func newMock(c *cobra.Command, a *app, more string, operations []string) *mock {
	m := &mock{a: a}
	f := c.Flags()
	valued(m, f, "address", "text", "listen on `HOST:PORT`, which is on this machine, such as 127.0.0.1:8080; else on a port that is free", parseWord, keywrighttest.WithAddress)
	textVar(f, &m.envFile, "env-file", "write the variables into `FILE`, too, as a whole, once the fake can be used")
	valued(m, f, "first-token", "text", "accept `TEXT` as the token that is there at the start, which else is random; never a real one", parseFirstToken, keywrighttest.WithFirstToken)
	f.IntVar(&m.seed, "seed-"+more, 0, "have `N` more "+more+" at the start")
	f.Var(&value{kind: "fault", set: func(s string) error {
		fault, err := parseFault(s, operations)
		m.faults = append(m.faults, fault)
		return err
	}}, "fault", "let requests go wrong as `FAULT` says, see above; may be given several times")
	valued(m, f, "lag", "duration", "refuse a new token for `DURATION` after it was issued", parseDuration, keywrighttest.WithLag)
	valued(m, f, "time", "time", "begin at `TIME`, such as 2027-01-31T12:00:00Z; else it is now", parseTime, func(t time.Time) keywrighttest.Option {
		clock := new(keywrighttest.Clock)
		clock.Set(t)
		return keywrighttest.WithClock(clock)
	})
	valued(m, f, "max-limit", "number", "send `N` items a page at most, whatever is asked for", parseCount, keywrighttest.WithMaxLimit)
	m.variant(f, "masked-tokens", "show masks in place of secrets, but for those that are new", keywrighttest.WithMaskedTokens())
	return m
}

// prepare checks what was asked for.
func (m *mock) prepare() error {
	if m.seed < 0 {
		return usage("the number to seed must not be negative")
	}
	if m.a.verbose {
		m.options = append(m.options, keywrighttest.WithObserver(m.observe))
	}
	return nil
}

// serve prints how to reach a fake, and waits for an interrupt.
func (m *mock) serve(fake interface{ Forget() }, what mocked, url, token string) error {
	variables := fmt.Sprintf("%s=%s\n%s=%s\n", url, what.URL, token, what.Token)
	err := m.checkEnvFile(url, token)
	if err != nil {
		return err
	}
	if m.a.format == formatTable {
		err = m.a.printText(variables)
	} else {
		err = m.a.print(&what, nil)
	}
	if err != nil {
		return err
	}
	m.a.note("a fake %s is running; Ctrl-C ends it, and it forgets everything", what.Provider)
	if m.envFile != "" { // comes last: scripts wait for it
		if err := durable.Replace(m.a.ctx, durable.OS{}, m.envFile, []byte(variables), durable.Options{}); err != nil {
			return usage("--env-file: %v", err)
		}
	}
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-m.a.ctx.Done():
			return nil // that is how one ends it
		case <-sweep.C:
			fake.Forget() // the requests, which it keeps for tests
		}
	}
}

// checkEnvFile refuses to replace a file that no fake has written.
func (m *mock) checkEnvFile(url, token string) error {
	if m.envFile == "" {
		return nil
	}
	info, err := os.Lstat(m.envFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// A fake has an address on this machine; a provider never has http.
	ours := regexp.MustCompile("^(" + url + `=http://\S+\n` + token + `=\S+\n)?$`)
	if err == nil && info.Mode().IsRegular() && info.Size() < 4096 {
		if content, err := os.ReadFile(m.envFile); err == nil && ours.Match(content) {
			return nil
		}
	}
	return usage("--env-file: %s exists, and was not written by a fake; name another, or remove it", m.envFile)
}

// observe logs a request.
func (m *mock) observe(r keywrighttest.Request, status int) {
	op, answer := r.Op, strconv.Itoa(status)
	if op == "" {
		op = "-"
	}
	if status == 0 {
		answer = "no answer"
	}
	m.a.note("%s %s %s %s", r.Method, r.Path, op, answer)
}
