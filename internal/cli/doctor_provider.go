package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright"
)

// Limits of what is in order.
const (
	expirySoon   = 7 * 24 * time.Hour
	offsetSmall  = 30 * time.Second
	offsetUsable = 5 * time.Minute
)

// patient is a provider that is examined.
type patient struct {
	*doctor
	provider
	settingsRead []keywright.Setting
	err          error
	token        keywright.Secret
	others       []keywright.Setting // tokens in files
}

// read reads the provider's settings.
func (c *patient) read() {
	c.settingsRead, c.err = c.provider.read(c.a)
	c.token = settingOf(c.settingsRead, "token").Secret
}

func (c *patient) check(what string) string { return c.name + " " + what }

// files looks at the config files that the provider may have.
func (c *patient) files() {
	if !c.provider.files {
		return
	}
	look := func(what, path string, must bool) {
		s := c.checkFile(c.check(what), path, must, c.err != nil)
		if !s.Secret.IsZero() {
			c.others = append(c.others, s)
		}
	}
	if c.a.conn.config != "" {
		look("config file", c.a.conn.config, true)
		return
	}
	home, ok := homeConfig()
	if ok {
		look("config file", home, false)
	}
	if conf := os.Getenv("RICLOUD_CONF"); conf != "" && conf != home {
		look("RICLOUD_CONF", conf, true)
	}
}

// examine looks at the settings, and asks the provider. needed says that it is
// wrong to have no token.
func (c *patient) examine(needed bool) {
	if c.err != nil {
		// What is wrong with a file was told where it was looked at.
		if !slices.ContainsFunc(c.findings, func(f finding) bool { return f.found == trimmed(c.err) }) {
			c.wrong(exitUsage, c.check("settings"), trimmed(c.err), mendSetting(c.err))
		}
		c.skip(c.check("access"), "the settings are wrong")
		return
	}
	token, url := settingOf(c.settingsRead, "token"), settingOf(c.settingsRead, "url")
	if token.Secret.IsZero() {
		c.noToken(token, needed)
		return
	}
	c.tellToken(token)
	c.ok(c.check("base URL"), "%s, from %s", url.Value, origin(url))
	switch {
	case c.offline:
		c.skip(c.check("access"), "--offline")
	case c.noProxy:
		c.skip(c.check("access"), "the proxy is wrong")
	case c.connect(url.Value):
		c.access(token)
	default:
		c.skip(c.check("access"), "there is no connection")
	}
}

func origin(s keywright.Setting) string {
	if s.Origin == "default" {
		return "the default"
	}
	return s.Origin
}

// mendSetting returns what to do about a setting that cannot be used.
func mendSetting(err error) string {
	place, _ := placeOf(err)
	switch {
	case place == "":
		return ""
	case isConfigPlace(place):
		return "correct " + place
	}
	return "correct " + place + ", or unset it"
}

// isConfigPlace tells a file from a variable.
func isConfigPlace(place string) bool { return strings.ContainsAny(place, `/\.:`) }

func (c *patient) noToken(token keywright.Setting, needed bool) {
	found := "none; looked at " + strings.Join(token.Looked, ", ")
	if !needed {
		c.skip(c.check("token"), "%s", found)
		return
	}
	mend := "set " + token.Looked[0]
	if c.provider.files {
		mend += ", or save a token: keywright config init"
	}
	c.wrong(exitUsage, c.check("token"), found, mend)
}

// tellToken says where the token comes from, and where there is another one
// that does not count.
func (c *patient) tellToken(token keywright.Setting) {
	var unused []string
	for _, s := range c.others {
		if s.Origin != token.Origin && !s.Secret.Equal(token.Secret) {
			unused = append(unused, s.Origin)
		}
	}
	if len(unused) == 0 {
		c.ok(c.check("token"), "from %s", token.Origin)
		return
	}
	c.warn(c.check("token"), "from "+token.Origin+"; another one, which does not count, is in "+strings.Join(unused, ", "),
		"if the other one is meant, unset or correct "+token.Origin)
}

// connect connects to the provider, or to the proxy in between, and reports
// whether that can be done. Nothing is sent.
func (c *patient) connect(base string) bool {
	check := c.check("connection")
	u, err := url.Parse(base)
	if err != nil { // the settings were read, so that it is one
		return false
	}
	target, through := u, proxyFor(u)
	if through != nil {
		target = through
	}
	ctx, cancel := c.within()
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addressOf(target))
	switch {
	case err != nil && through != nil:
		hidden := ""
		if through.User != nil {
			hidden = " (user info not shown)"
		}
		c.wrong(exitUsage, check, "proxy "+proxyHost(through, addressOf(through))+": "+dialReason(err)+hidden, "correct the proxy's variable, or unset it")
		return false
	case err != nil:
		c.wrong(exitFailed, check, addressOf(u)+": "+dialReason(err), "look at the network, at name resolution, and at the base URL")
		return false
	}
	defer conn.Close()
	switch at := conn.RemoteAddr().String(); {
	case through != nil:
		c.ok(check, "through the proxy %s", proxyHost(through, addressOf(through)))
	case at == addressOf(u):
		c.ok(check, "%s", at)
	default:
		c.ok(check, "%s, at %s", addressOf(u), at)
	}
	return true
}

// access asks the provider about the token, and compares the clocks.
func (c *patient) access(token keywright.Setting) {
	ctx, cancel := c.within()
	defer cancel()
	opts := c.a.commonOptions()
	if c.provider.files && c.a.conn.config != "" {
		opts = append(opts, keywright.WithConfigFile(c.a.conn.config))
	}
	var meta keywright.Meta
	asked := time.Now()
	var err error
	switch c.name {
	case "ricloud":
		err = c.askRicloud(ctx, opts, &meta)
	default:
		err = c.askAceData(ctx, opts, token.Secret, &meta)
	}
	answered := time.Now()
	check := c.check("access")
	switch {
	case err == nil:
	case errors.Is(err, keywright.ErrUnauthorized):
		c.wrong(exitDenied, check, "the token from "+token.Origin+" is not accepted: "+trimmed(err), c.mendToken(token.Origin))
	case errors.Is(err, keywright.ErrForbidden):
		c.wrong(exitDenied, check, "the token from "+token.Origin+" may not be used: "+trimmed(err), "ask the provider what the token may do")
	case errors.Is(err, keywright.ErrRateLimited):
		c.warn(check, "not known: "+trimmed(err), "try again later")
	case codeOf(err) == exitUsage: // told under proxy or certificates
		c.skip(check, "%s", trimmed(err))
	case errors.Is(err, context.DeadlineExceeded):
		c.wrong(exitFailed, check, "no answer in time", "try again later, or with a longer --timeout")
	default:
		c.wrong(exitFailed, check, trimmed(err), "look at the base URL, at the proxy and at the certificates; try again later")
	}
	if date, bad := http.ParseTime(meta.Header.Get("Date")); bad == nil {
		c.compareClocks(asked.Add(answered.Sub(asked)/2), date)
	}
}

func (c *patient) mendToken(origin string) string {
	if c.provider.files && isConfigPlace(origin) {
		return "save one that works: keywright config init"
	}
	return "set " + origin + " to one that works"
}

func (c *patient) askRicloud(ctx context.Context, opts []keywright.Option, meta *keywright.Meta) error {
	rc, err := keywright.NewRicloud(opts...)
	if err != nil {
		return err
	}
	defer rc.CloseIdleConnections()
	key, err := rc.Key.Current(ctx, keywright.WithMeta(meta))
	if err != nil {
		return err
	}
	found := fmt.Sprintf("key %d, %s, %s", key.ID, key.Type, key.State)
	if key.State != keywright.KeyActive {
		c.wrong(exitFailed, c.check("access"), found, "only active keys work: use another one")
		return nil
	}
	c.tellExpiry(found, key.DateExpires, "make another key: keywright ricloud key create")
	return nil
}

func (c *patient) askAceData(ctx context.Context, opts []keywright.Option, token keywright.Secret, meta *keywright.Meta) error {
	ad, err := keywright.NewAceData(opts...)
	if err != nil {
		return err
	}
	defer ad.CloseIdleConnections()
	user, err := ad.PlatformToken.Me(ctx, keywright.WithMeta(meta))
	if err != nil {
		return err
	}
	var expires *time.Time
	for t, err := range ad.PlatformToken.All(ctx, keywright.PlatformTokenListParams{}) {
		if err != nil {
			break // not all tokens may list tokens
		}
		if t.Token.Equal(token) {
			expires = t.Expiration
			break
		}
	}
	c.tellExpiry("user "+cmp.Or(user.Username, user.ID), expires, "make another: keywright acedata platform-token create")
	return nil
}

// tellExpiry says that a token is accepted, and until when.
func (c *patient) tellExpiry(found string, expires *time.Time, mend string) {
	check := c.check("access")
	if expires == nil {
		c.ok(check, "%s", found)
		return
	}
	found += ", expires " + expires.UTC().Format(time.RFC3339)
	if time.Until(*expires) < expirySoon {
		c.warn(check, found, mend)
		return
	}
	c.ok(check, "%s", found)
}

// compareClocks compares the time now with what the provider said at the same
// time. It says whole seconds, so that it is half a second behind on average.
func (c *patient) compareClocks(now, date time.Time) {
	const mend = "set the system clock, or let NTP do it: webhooks and rotations depend on it"
	check := c.check("clock")
	offset := now.Sub(date.Add(500 * time.Millisecond)).Round(time.Second)
	side := "ahead of"
	if offset < 0 {
		side = "behind"
	}
	found := fmt.Sprintf("the system clock is %v %s the provider's", offset.Abs(), side)
	switch {
	case offset.Abs() > offsetUsable:
		c.wrong(exitFailed, check, found, mend)
	case offset.Abs() > offsetSmall:
		c.warn(check, found, mend)
	case offset.Abs() <= time.Second:
		c.ok(check, "the system clock agrees with the provider's")
	default:
		c.ok(check, "%s", found)
	}
}
