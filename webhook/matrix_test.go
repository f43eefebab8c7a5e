package webhook_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/webhook"
)

// rows reads a table of testdata.
func rows(t *testing.T, name string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile("../testdata/" + name)
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		rows = append(rows, strings.Split(strings.TrimRight(line, "\n"), "\t"))
	}
	return rows
}

// Every cell of the fault matrix about webhooks has its test, and there is no
// test of another.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	cells := 0
	for _, row := range rows(t, "fault-matrix.tsv") {
		if len(row[0]) != 3 || row[0][0] != 'W' {
			continue
		}
		cells++
		tests := 0
		for name := range handlerCells {
			if strings.HasPrefix(name, row[0]+" ") {
				tests++
			}
		}
		assert.Equal(t, 1, tests, "cell %s", row[0])
	}
	assert.Equal(t, 22, cells)
	assert.Len(t, handlerCells, cells)
}

// Every bad input about webhooks is refused as the table says.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	try := map[string]func(*testing.T, string) error{
		"webhook_secret":  badSecrets,
		"webhook header":  badHeader,
		"webhook mac":     badMAC,
		"webhook time":    badTime,
		"webhook request": badRequest,
	}
	classes := map[string]error{
		"ErrInvalidSecret": webhook.ErrInvalidSecret, "ErrSignatureMalformed": webhook.ErrMalformedSignature,
		"ErrSignatureMismatch": webhook.ErrSignatureMismatch, "ErrTimestamp": webhook.ErrTimestamp,
		"405": status(405), "415": status(415), "400": status(400), "409": status(409),
	}
	tried := 0
	for _, row := range rows(t, "bad-inputs.tsv") {
		f := try[row[1]]
		if f == nil || len(row) < 7 {
			continue
		}
		var input string
		require.NoError(t, json.Unmarshal([]byte(row[2]), &input), "row %s", row[0])
		tried++
		t.Run(row[0]+" "+input, func(t *testing.T) {
			t.Parallel()
			err := f(t, input)
			class := classes[row[3]]
			require.NotNil(t, class, row[3])
			require.ErrorIs(t, err, class)
			for _, secret := range []string{secretA, secretB, "changeme", "tok…"} {
				assert.NotContains(t, err.Error(), secret)
			}
		})
	}
	assert.GreaterOrEqual(t, tried, 37)
}

// status is an answer.
type status int

func (s status) Error() string { return strconv.Itoa(int(s)) }

func badSecrets(_ *testing.T, input string) error {
	var list []string
	if json.Unmarshal([]byte(input), &list) != nil { // [a,b,c,d,e] stands for five good ones
		for i := range strings.Count(input, ",") + 1 {
			list = append(list, fmt.Sprintf("canary-webhook-secret-%d", i))
		}
	}
	var secrets []keywright.Secret
	for _, s := range list {
		secrets = append(secrets, keywright.NewSecret(s))
	}
	_, err := webhook.NewVerifier(secrets)
	return err
}

// badHeader puts a good signature in the place of an ellipsis.
func badHeader(t *testing.T, input string) error {
	mac := now(body(idA))[len("t=1570788000,s="):]
	raw, err := base64.StdEncoding.DecodeString(mac)
	require.NoError(t, err)
	h, ok := map[string]string{
		"45 chars":          "t=1570788000,s=A" + mac,
		"no padding":        "t=1570788000,s=" + strings.TrimRight(mac, "="),
		"non-zero pad bits": "t=1570788000,s=" + mac[:42] + string(mac[42]+1) + "=",
		"hex MAC":           "t=1570788000,s=" + hex.EncodeToString(raw),
		"v1=hex":            "t=1570788000,v1=" + hex.EncodeToString(raw),
	}[input]
	if !ok {
		h = strings.NewReplacer("999…(30)", strings.Repeat("9", 30), "=…", "="+mac).Replace(input)
	}
	_, err = verifier(t, secretA).Verify(header(h), body(idA))
	return err
}

func badMAC(t *testing.T, input string) error {
	v, h, b := verifier(t, secretA), now(body(idA)), body(idA)
	switch input {
	case "MAC of other body":
		h = now(body(idB))
	case "MAC with old secret after removal":
		require.NoError(t, v.SetSecrets(keywright.NewSecret(secretB)))
	case "MAC with base64-decoded secret":
		v = verifier(t, base64.StdEncoding.EncodeToString([]byte(secretA)))
	case "one bit of body flipped":
		b[3] ^= 1
	case "body re-serialised JSON":
		var any map[string]any
		require.NoError(t, json.Unmarshal(b, &any))
		b, _ = json.Marshal(any)
	default:
		t.Fatalf("not known: %s", input)
	}
	_, err := v.Verify(header(h), b)
	return err
}

func badTime(t *testing.T, input string) error {
	stamp, ok := map[string]string{
		"now-tolerance-1s": "1570787699", "now+tolerance+1s": "1570788301",
		"milliseconds since epoch": fmt.Sprint(epoch.UnixMilli()), "t=0": "0",
	}[input]
	require.True(t, ok, input)
	_, err := verifier(t, secretA).Verify(header(sign(secretA, stamp, body(idA))), body(idA))
	return err
}

func badRequest(t *testing.T, input string) error {
	in := new(inbox)
	srv := serve(t, webhook.Handler(verifier(t, secretA), in.accept))
	url, b := srv.URL, body(idA)
	edit := func(*http.Request) {}
	effects := 0
	switch input {
	case "GET":
		edit = func(r *http.Request) { r.Method = input }
	case "text/plain":
		edit = func(r *http.Request) { r.Header.Set("Content-Type", input) }
	case "signed garbage":
		b = []byte("garbage")
	case "signed, no id":
		b = []byte(`{"type":"task","action":"created"}`)
	case "path id ≠ body id":
		url += "/" + idB
	case "same id, other body":
		require.Equal(t, 204, deliver(t, url, now(b), bytes.NewReader(b)).status)
		b = bytes.Replace(b, []byte("s1"), []byte("s2"), 1)
		effects = 1
	default:
		t.Fatalf("not known: %s", input)
	}
	got := deliver(t, url, now(b), bytes.NewReader(b), edit)
	assert.Len(t, in.events, effects)
	return status(got.status)
}
