package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

const (
	secretA = "canary-webhook-secret-a"
	secretB = "canary-webhook-secret-b"
)

var epoch = time.Unix(1_570_788_000, 0)

// verifier returns one whose clock stands still.
func verifier(t testing.TB, secrets ...string) *webhook.Verifier {
	t.Helper()
	var list []keywright.Secret
	for _, s := range secrets {
		list = append(list, keywright.NewSecret(s))
	}
	v, err := webhook.NewVerifier(list, webhook.WithClock(func() time.Time { return epoch }))
	require.NoError(t, err)
	return v
}

func header(values ...string) http.Header { return http.Header{webhook.Header: values} }

// sign signs with nothing of the package.
func sign(secret, seconds string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",s=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func body(id string) []byte {
	return []byte(`{"id":"` + id + `","resource":"event","type":"session","action":"expired","data":{"id":"s1"},"state":"pending","retries":0,"date_created":"2019-10-11T10:00:00Z","date_delivered":null}`)
}

const idA = "c1c7b0d2-52a4-4f0e-9d0e-1fd4f9b2a7e3"

// The golden vectors, which were computed by others.
func TestGoldenVectors(t *testing.T) {
	t.Parallel()
	var golden struct {
		HeaderName string `json:"header_name"`
		Vectors    []struct {
			Name, Secret, Header string
			Timestamp            int64
			Body                 string `json:"body_utf8"`
		}
	}
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture("ricloud/webhook_signature_vectors.json"), &golden))
	assert.Equal(t, golden.HeaderName, webhook.Header)
	require.Len(t, golden.Vectors, 4)
	events := 0
	for _, c := range golden.Vectors {
		secret := keywright.NewSecret(c.Secret)
		at := time.Unix(c.Timestamp, 0)
		assert.Equal(t, c.Header, webhook.Sign(secret, at, []byte(c.Body)), c.Name)
		v, err := webhook.NewVerifier([]keywright.Secret{secret}, webhook.WithClock(func() time.Time { return at }))
		require.NoError(t, err)
		e, err := v.Verify(header(c.Header), []byte(c.Body))
		if err != nil { // most of the bodies are no events
			require.ErrorIs(t, err, webhook.ErrInvalidEvent, c.Name)
			continue
		}
		events++
		assert.Equal(t, webhook.WebhookConfigTest, e.Slug())
		require.NotNil(t, e.WebhookConfig)
		assert.Equal(t, keywright.WebhookConfigID(2), e.WebhookConfig.ID)
		assert.Equal(t, c.Body, e.Raw.Reveal())
	}
	assert.Equal(t, 1, events)
}

// Every single bit of header and body matters.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	v, b := verifier(t, secretA), body(idA)
	h := webhook.Sign(keywright.NewSecret(secretA), epoch, b)
	_, err := v.Verify(header(h), b)
	require.NoError(t, err)
	for i := range len(h) * 8 {
		flipped := []byte(h)
		flipped[i/8] ^= 1 << (i % 8)
		_, err := v.Verify(header(string(flipped)), b)
		require.Error(t, err, "bit %d of the header", i)
		assert.True(t, is(err, webhook.ErrMalformedSignature, webhook.ErrSignatureMismatch), "%v", err)
	}
	for i := range len(b) * 8 {
		flipped := append([]byte(nil), b...)
		flipped[i/8] ^= 1 << (i % 8)
		_, err := v.Verify(header(h), flipped)
		require.ErrorIs(t, err, webhook.ErrSignatureMismatch, "bit %d of the body", i)
	}
	for n := range b {
		_, err := v.Verify(header(h), b[:n])
		require.ErrorIs(t, err, webhook.ErrSignatureMismatch)
	}
}

func is(err error, targets ...error) bool {
	for _, t := range targets {
		if strings.Contains(err.Error(), t.Error()) {
			return true
		}
	}
	return false
}

func TestMalformedHeaders(t *testing.T) {
	t.Parallel()
	v, b := verifier(t, secretA), body(idA)
	good := sign(secretA, "1570788000", b)
	mac := good[strings.Index(good, "s=")+2:]
	raw, err := base64.StdEncoding.DecodeString(mac)
	require.NoError(t, err)
	with := func(stamp string) string { return sign(secretA, stamp, b) }
	cases := map[string]string{ // header: what the error says
		"t=1":                    `want "t=<seconds>,s=<base64>"`,
		"t=1570788000":           `want "t=<seconds>,s=<base64>"`,
		"s=" + mac:               `want "t=" first`,
		"s=" + mac + ",t=1":      `want "t=" first`,
		"x=1,y=" + mac:           `want "t=" first`,
		" " + good:               `want "t=" first`,
		"T=1570788000,s=" + mac:  `want "t=" first`,
		`"` + good + `"`:         `want "t=" first`,
		"t =1570788000,s=" + mac: `want "t=" first`,
		"v1," + good:             `want "t=" first`,
		"sha256=" + mac:          `want "t=" first`,
		mac:                      `want "t=" first`,
		",":                      `want "t=" first`,
		"=":                      `want "t=" first`,
		"t":                      `want "t=" first`,
		"\x00":                   `want "t=" first`,
		"t=,s=" + mac:            "timestamp: empty",
		"t= 1570788000,s=" + mac: "timestamp: digits only",
		"t=1570788000 ,s=" + mac: "timestamp: digits only",
		"t=1_0,s=" + mac:         "timestamp: digits only",
		"t=1.0,s=" + mac:         "timestamp: digits only",
		"t=1e9,s=" + mac:         "timestamp: digits only",
		"t=-1,s=" + mac:          "timestamp: digits only",
		"t=+1,s=" + mac:          "timestamp: digits only",
		"t=0x5d,s=" + mac:        "timestamp: digits only",
		"t=1\x002,s=" + mac:      "timestamp: digits only",
		"t=١٥,s=" + mac:          "timestamp: digits only",
		"t=1\n,s=" + mac:         "timestamp: digits only",
		"t=now,s=" + mac:         "timestamp: digits only",
		"t=NaN,s=" + mac:         "timestamp: digits only",
		"t=true,s=" + mac:        "timestamp: digits only",
		with("01"):               "timestamp: leading zero",
		with("00"):               "timestamp: leading zero",
		with("01570788000"):      "timestamp: leading zero",
		"t=" + strings.Repeat("9", 30) + ",s=" + mac:         "timestamp: too long",
		"t=99999999999999,s=" + mac:                          "timestamp: too long",
		"t=18446744073709551616,s=" + mac:                    "timestamp: too long",
		"t=1,t=2,s=" + mac:                                   "want exactly two fields",
		good + ",":                                           "want exactly two fields",
		good + ",s=" + mac:                                   "want exactly two fields",
		good + ",v1=abc":                                     "want exactly two fields",
		"t=1570788000,,s=" + mac:                             "want exactly two fields",
		"t=1570788000,":                                      `want "t=" then "s="`,
		"t=1570788000, s=" + mac:                             `want "t=" then "s="`,
		"t=1570788000,S=" + mac:                              `want "t=" then "s="`,
		"t=1570788000,v1=" + hex.EncodeToString(raw):         `want "t=" then "s="`,
		"t=1570788000,t=1570788000":                          `want "t=" then "s="`,
		"t=1570788000;s=" + mac:                              `want "t=<seconds>,s=<base64>"`,
		"t=1570788000&s=" + mac:                              `want "t=<seconds>,s=<base64>"`,
		"t=1570788000 s=" + mac:                              `want "t=<seconds>,s=<base64>"`,
		"t=1570788000,s=":                                    "want 44 base64 characters, got 0",
		"t=1570788000,s=" + mac[:43]:                         "want 44 base64 characters, got 43",
		"t=1570788000,s=" + mac + "=":                        "want 44 base64 characters, got 45",
		"t=1570788000,s=" + mac + " ":                        "want 44 base64 characters, got 45",
		"t=1570788000,s=" + hex.EncodeToString(raw):          "want 44 base64 characters, got 64",
		"t=1570788000,s=" + strings.Repeat("A", 1<<16):       "want 44 base64 characters, got 65536",
		"t=1570788000,s=" + mac[:42] + "\n=":                 "not base64",
		"t=1570788000,s=" + "\r" + mac[1:]:                   "not base64",
		"t=1570788000,s=" + strings.Repeat("=", 44):          "not canonical base64",
		"t=1570788000,s=" + strings.Repeat("A", 44):          "not canonical base64",
		"t=1570788000,s=" + strings.Repeat("A", 42) + "==":   "not canonical base64",
		"t=1570788000,s=" + mac[:42] + "B=":                  "not canonical base64",
		"t=1570788000,s=" + strings.Repeat("-", 43) + "=":    "not canonical base64",
		"t=1570788000,s=" + strings.Repeat("_", 43) + "=":    "not canonical base64",
		"t=1570788000,s=" + strings.Repeat("\xff", 43) + "=": "not canonical base64",
		"t=1570788000,s=" + strings.Repeat(" ", 43) + "=":    "not canonical base64",
	}
	for h, text := range cases {
		_, err := v.Verify(header(h), b)
		require.ErrorIs(t, err, webhook.ErrMalformedSignature, "%.80q", h)
		assert.ErrorContains(t, err, text, "%.80q", h)
		assert.NotContains(t, err.Error(), mac)
	}
	assert.GreaterOrEqual(t, len(cases), 60)
	t.Logf("%d malformed headers", len(cases))

	for name, h := range map[string]http.Header{"none": {}, "empty": header(""), "nil": nil, "other case": {"ricloud-signature": {good}}} {
		_, err := v.Verify(h, b)
		require.ErrorIs(t, err, webhook.ErrNoSignature, name)
	}
	_, err = v.Verify(header(good, good), b)
	require.ErrorIs(t, err, webhook.ErrMalformedSignature)
}

func TestMismatches(t *testing.T) {
	t.Parallel()
	v, b := verifier(t, secretA), body(idA)
	decoded := base64.StdEncoding.EncodeToString([]byte("canary-webhook-secret-a!"))
	var compact any
	require.NoError(t, json.Unmarshal(b, &compact))
	again, err := json.Marshal(compact)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		v    *webhook.Verifier
		h    string
		body []byte
	}{
		"of another body":      {v, sign(secretA, "1570788000", []byte("{}")), b},
		"another secret":       {v, sign(secretB, "1570788000", b), b},
		"base64 of the secret": {verifier(t, decoded), sign("canary-webhook-secret-a!", "1570788000", b), b},
		"re-serialised":        {v, sign(secretA, "1570788000", b), again},
		"another timestamp":    {v, "t=1570788001" + sign(secretA, "1570788000", b)[12:], b},
		"without the dot":      {v, "t=1570788000" + sign(secretA, "1570788000", append([]byte("x"), b...))[12:], b},
	} {
		_, err := c.v.Verify(header(c.h), c.body)
		require.ErrorIs(t, err, webhook.ErrSignatureMismatch, name)
	}
}

// The time is checked in both directions, after the signature.
func TestTimestamps(t *testing.T) {
	t.Parallel()
	b := body(idA)
	for _, tolerance := range []time.Duration{time.Second, 5 * time.Minute, time.Hour} {
		v, err := webhook.NewVerifier([]keywright.Secret{keywright.NewSecret(secretA)},
			webhook.WithClock(func() time.Time { return epoch }), webhook.WithTolerance(tolerance))
		require.NoError(t, err)
		at := func(d time.Duration) error {
			_, err := v.Verify(header(sign(secretA, fmt.Sprint(epoch.Add(d).Unix()), b)), b)
			return err
		}
		require.NoError(t, at(0))
		require.NoError(t, at(tolerance))
		require.NoError(t, at(-tolerance))
		require.ErrorIs(t, at(tolerance+time.Second), webhook.ErrTimestamp)
		require.ErrorIs(t, at(-tolerance-time.Second), webhook.ErrTimestamp)
	}
	v := verifier(t, secretA)
	for stamp, text := range map[string]string{
		"1570788301":   "timestamp is 301s in the future; the tolerance is 300s; check the clock",
		"1570787699":   "timestamp is 301s old; the tolerance is 300s",
		"0":            "timestamp is too old; the tolerance is 300s",
		"157078800000": "timestamp is not in seconds",
	} {
		_, err := v.Verify(header(sign(secretA, stamp, b)), b)
		require.ErrorIs(t, err, webhook.ErrTimestamp)
		assert.ErrorContains(t, err, text)
		_, err = v.Verify(header(sign(secretB, stamp, b)), b)
		require.ErrorIs(t, err, webhook.ErrSignatureMismatch, "the signature comes first")
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	for text, secrets := range map[string][]string{
		"at least one webhook secret is required":             {},
		"webhook secret 1 is empty":                           {""},
		"webhook secret 1 is blank":                           {strings.Repeat(" ", 20)},
		"webhook secret 1 is 5 bytes long; the minimum is 16": {"short"},
		"webhook secret 2 is 15 bytes long":                   {secretA, "123456789012345"},
		"5 webhook secrets given; the maximum is 4":           {secretA, secretB, secretA, secretB, secretA},
		"webhook secret 1 is a placeholder":                   {"changeme-changeme"},
		"webhook secret 2 is a placeholder":                   {secretA, "your_webhook_secret"},
		"webhook secret 3 is a placeholder":                   {secretA, secretB, "****************"},
		"webhook secret 1 ends with a newline":                {"tokentokentokentoken\n"},
	} {
		var list []keywright.Secret
		for _, s := range secrets {
			list = append(list, keywright.NewSecret(s))
		}
		_, err := webhook.NewVerifier(list)
		require.ErrorIs(t, err, webhook.ErrInvalidSecret)
		assert.ErrorContains(t, err, text)
		for _, s := range secrets {
			if s = strings.TrimSpace(s); len(s) > 3 {
				assert.NotContains(t, err.Error(), s)
			}
		}
		v := verifier(t, secretA)
		require.ErrorIs(t, v.SetSecrets(list...), webhook.ErrInvalidSecret)
		_, err = v.Verify(header(sign(secretA, "1570788000", body(idA))), body(idA))
		require.NoError(t, err, "the secrets from before still hold")
	}
	var none webhook.Verifier
	_, err := none.Verify(header(sign("", "1570788000", body(idA))), body(idA))
	require.ErrorIs(t, err, webhook.ErrInvalidSecret)
}

// Two secrets overlap, and then the old one is refused.
func TestSecretOverlap(t *testing.T) {
	t.Parallel()
	v := verifier(t, secretA)
	old, b := header(sign(secretA, "1570788000", body(idA))), body(idA)
	fresh := header(sign(secretB, "1570788000", b))
	_, err := v.Verify(fresh, b)
	require.ErrorIs(t, err, webhook.ErrSignatureMismatch)
	require.NoError(t, v.SetSecrets(keywright.NewSecret(secretB), keywright.NewSecret(secretA)))
	for _, h := range []http.Header{old, fresh} {
		_, err = v.Verify(h, b)
		require.NoError(t, err)
	}
	require.NoError(t, v.SetSecrets(keywright.NewSecret(secretB)))
	_, err = v.Verify(old, b)
	require.ErrorIs(t, err, webhook.ErrSignatureMismatch)
}

func TestVerifierOptions(t *testing.T) {
	t.Parallel()
	one := []keywright.Secret{keywright.NewSecret(secretA)}
	for text, opt := range map[string]webhook.Option{
		"must be greater than 0; there is no way to turn the check off": webhook.WithTolerance(0),
		"must be greater than 0;":            webhook.WithTolerance(-time.Second),
		"must be at most 1h0m0s, got 2h0m0s": webhook.WithTolerance(2 * time.Hour),
		"must not be nil":                    webhook.WithClock(nil),
	} {
		_, err := webhook.NewVerifier(one, opt)
		var param *keywright.ParamError
		require.ErrorAs(t, err, &param)
		assert.ErrorContains(t, err, text)
	}
	// In a bubble the system's clock shows the year 2000.
	synctest.Test(t, func(t *testing.T) {
		_, err := webhook.NewVerifier(one)
		var config *keywright.ConfigError
		require.ErrorAs(t, err, &config)
		assert.ErrorContains(t, err, "system clock is before 2020")
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	v := verifier(t, secretA)
	verify := func(b []byte) (*webhook.Event, error) {
		return v.Verify(header(sign(secretA, "1570788000", b)), b)
	}
	e, err := verify(keywrighttest.Fixture("ricloud/event_task_succeeded.json"))
	require.NoError(t, err)
	assert.Equal(t, webhook.TaskSucceeded, e.Slug())
	assert.True(t, e.Known())
	require.NotNil(t, e.Task)
	assert.Equal(t, keywright.TaskSucceeded, e.Task.State)
	assert.Nil(t, e.WebhookConfig)
	e, err = verify(keywrighttest.Fixture("ricloud/event_webhook_config_test.json"))
	require.NoError(t, err)
	require.NotNil(t, e.WebhookConfig)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", e, *e, e), e.WebhookConfig.Secret.Reveal())

	e, err = verify([]byte(`{"id":"x","type":"moon","action":"rose","data":{"phase":"full"},"new":1}`))
	require.NoError(t, err)
	assert.False(t, e.Known())
	assert.Equal(t, "moon.rose", e.Slug())
	assert.JSONEq(t, `{"phase":"full"}`, e.Data.Reveal())
	e, err = verify([]byte(`{"id":"x","type":"task","action":"succeeded","data":"not a task"}`))
	require.NoError(t, err)
	assert.Nil(t, e.Task, "the event is true all the same")

	for text, b := range map[string]string{
		"body is not JSON":           "{",
		"event has no id":            `{"type":"task","action":"created"}`,
		"no type or no action":       `{"id":"x","action":"created"}`,
		"no type or no action ":      `{"id":"x","type":"task"}`,
		"webhook: invalid event: ":   `[]`,
		"webhook: invalid event:  ":  `null`,
		"webhook: invalid event:   ": `{"id":{}}`,
		"body is not JSON ":          ``,
	} {
		_, err := verify([]byte(b))
		require.ErrorIs(t, err, webhook.ErrInvalidEvent, b)
		assert.ErrorContains(t, err, strings.TrimRight(text, " "), b)
	}
}

// Verifying costs little more than the HMAC that it has to compute.
func BenchmarkVerify(b *testing.B) {
	data := []byte(`{"id":"` + idA + `","type":"session","action":"expired","data":"` + strings.Repeat("x", 4000) + `"}`)
	h := header(sign(secretA, "1570788000", data))
	v := verifier(b, secretA)
	b.Run("Verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(h, data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hmac", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mac := hmac.New(sha256.New, []byte(secretA))
			mac.Write([]byte("1570788000."))
			mac.Write(data)
			mac.Sum(nil)
		}
	})
}

func TestVerifyCosts(t *testing.T) {
	data := []byte(`{"id":"` + idA + `","type":"session","action":"expired","data":"` + strings.Repeat("x", 4000) + `"}`)
	h, v := header(sign(secretA, "1570788000", data)), verifier(t, secretA)
	n := testing.AllocsPerRun(100, func() {
		if _, err := v.Verify(h, data); err != nil {
			panic(err)
		}
	})
	best := time.Hour // of many: the others were interrupted
	for range 1000 {
		start := time.Now()
		_, _ = v.Verify(h, data)
		best = min(best, time.Since(start))
	}
	t.Logf("%.0f allocations, %s", n, best)
	if !raceDetector {
		assert.LessOrEqual(t, n, 10.0)
		assert.Less(t, best, 50*time.Microsecond)
	}
}

// Whatever the header is, it is read without a panic, and only the one that
// was signed is taken.
func FuzzHeader(f *testing.F) {
	b := body(idA)
	good := sign(secretA, "1570788000", b)
	for _, seed := range []string{good, "", "t=1", "t=1,s=", good + ",", "t=01570788000" + good[12:]} {
		f.Add(seed)
	}
	v := verifier(f, secretA)
	f.Fuzz(func(t *testing.T, h string) {
		if _, err := v.Verify(header(h), b); err == nil && h != good {
			t.Errorf("%q was taken for a signature", h)
		}
	})
}

// Whatever a body is, if it is an event it has an id and a slug.
func FuzzEvent(f *testing.F) {
	for _, name := range []string{"event_task_succeeded", "event_webhook_config_test"} {
		f.Add(keywrighttest.Fixture("ricloud/" + name + ".json"))
	}
	f.Add([]byte(`{"id":"x","type":"a","action":"b","data":[{}]}`))
	v := verifier(f, secretA)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := v.Verify(header(webhook.Sign(keywright.NewSecret(secretA), epoch, b)), b)
		switch {
		case err != nil && !is(err, webhook.ErrInvalidEvent):
			t.Errorf("want an event or ErrInvalidEvent, got %v", err)
		case err == nil && (e.ID == "" || e.Slug() == "." || e.Raw.Reveal() != string(b)):
			t.Errorf("%+v", e)
		}
	})
}
