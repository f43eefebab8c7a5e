package keywrighttest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// call speaks plain HTTP to a fake: what the SDK would hide shows here.
func call(t *testing.T, method, url, authorization, body string) (status int, header http.Header, members map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if len(b) > 0 {
		require.NoError(t, json.Unmarshal(b, &members), "%s", b)
	}
	return resp.StatusCode, resp.Header, members
}

// names are the members of a golden document.
func names(t *testing.T, fixture string) []string {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture(fixture), &m))
	return keys(m)
}

func keys(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestRicloudSpeaksLikeTheGoldenDocuments(t *testing.T) {
	t.Parallel()
	f := keywrighttest.StartRicloud(t)
	auth := "Token " + f.Token()
	get := func(method, path, body string) (int, map[string]any) {
		status, header, m := call(t, method, f.URL()+path, auth, body)
		if status != http.StatusNoContent {
			assert.Equal(t, "application/json", header.Get("Content-Type"))
		}
		_, err := http.ParseTime(header.Get("Date"))
		require.NoError(t, err)
		return status, m
	}
	same := func(fixture string, m map[string]any) {
		t.Helper()
		assert.Equal(t, names(t, fixture), keys(m), fixture)
	}
	status, m := get("GET", "/key", "")
	assert.Equal(t, 200, status)
	same("ricloud/key.json", m)
	assert.Len(t, m["token"], 64)
	status, m = get("POST", "/configs/webhook", `{"url":"https://hooks.example.com/"}`)
	assert.Equal(t, 201, status)
	same("ricloud/webhook_config_new.json", m)
	status, m = get("POST", "/configs/storage", `{"url":"gs://b/p","credentials":{"private_key":"x","client_email":"y"}}`)
	assert.Equal(t, 201, status)
	same("ricloud/storage_config_gs.json", m)
	assert.Equal(t, "gs", m["type"], "derived from the URL")
	assert.Equal(t, "new", m["state"])
	status, m = get("POST", "/configs/webhook/1/test", "null")
	assert.Equal(t, 201, status)
	same("ricloud/task_webhook_config_test_pending.json", m)
	status, m = get("GET", "/keys?limit=1", "")
	assert.Equal(t, 200, status)
	same("ricloud/key_list.json", m)
	status, m = get("GET", "/organisation", "")
	assert.Equal(t, 200, status)
	for _, name := range names(t, "ricloud/organisation_unconfigured.json") {
		assert.Contains(t, m, name)
	}
	for _, body := range []string{"", "{}", "null"} { // alike on actions
		status, m = get("POST", "/keys/1/rotate", body)
		assert.Equal(t, 200, status)
		same("ricloud/key_rotated.json", m)
		auth = "Token " + f.Token()
	}
	for path, want := range map[string]struct {
		method, body string
		status       int
		slug         string
	}{
		"/keys/9":              {"GET", "", 404, "not-found"},
		"/keys/x":              {"GET", "", 404, "not-found"},
		"/nothing":             {"GET", "", 404, "not-found"},
		"/keys/":               {"GET", "", 404, "not-found"},    // no path ends in a slash
		"/keys/1":              {"DELETE", "", 404, "not-found"}, // keys cannot be deleted
		"/keys":                {"POST", "{", 400, "invalid-body"},
		"/keys/1/rotate":       {"POST", `{"force":"yes"}`, 400, "invalid-parameter"},
		"/configs/webhook":     {"POST", `{}`, 400, "invalid-parameter"},
		"/configs/storage":     {"POST", `{"url":"ftp://x","credentials":{}}`, 400, "invalid-parameter"},
		"/configs/storage/9":   {"POST", `{}`, 404, "not-found"},
		"/configs/webhook/1/x": {"POST", `{}`, 404, "not-found"},
		"/organisation":        {"POST", `{"storage_config_default":9}`, 400, "invalid-parameter"},
		"/tasks/x":             {"GET", "", 404, "not-found"},
	} {
		status, m = get(want.method, path, want.body)
		assert.Equal(t, want.status, status, path)
		assert.Equal(t, want.slug, m["error"], path)
	}
	status, _ = get("POST", "/organisation", `{"storage_config_default":1,"name":7}`)
	assert.Equal(t, 400, status)
	_, m = get("GET", "/organisation", "")
	assert.Nil(t, m["storage_config_default"], "a refused update changes nothing")
	status, _ = get("DELETE", "/configs/storage/1", "")
	assert.Equal(t, 200, status)
	_, m = get("POST", "/configs/storage", `{"url":"s3://b","credentials":{}}`)
	assert.InDelta(t, 2, m["id"], 0, "ids are never used again")
	assert.Equal(t, false, m["signed_urls_enabled"])
	for _, bad := range []string{"", "Token", "Token wrong", "Bearer " + f.Token()} {
		status, _, m := call(t, "GET", f.URL()+"/key", bad, "")
		assert.Equal(t, 401, status)
		assert.Equal(t, "unauthorized", m["error"])
	}
	for _, r := range f.Requests() {
		assert.Empty(t, r.Header.Get("Authorization"), "not recorded")
	}
}

func TestRicloudVariants(t *testing.T) {
	t.Parallel()
	clock := new(keywrighttest.Clock)
	f := keywrighttest.StartRicloud(t, keywrighttest.WithManyGraceTokens(), keywrighttest.WithEmptyDelete(), keywrighttest.WithInactiveForbidden(),
		keywrighttest.WithClock(clock), keywrighttest.WithWebhookRequired(), keywrighttest.WithTestResult(func(config map[string]any) string {
			if config["resource"] == "storage_config" {
				return ""
			}
			return "no-answer"
		}))
	first := "Token " + f.Token()
	for range 3 {
		status, _, _ := call(t, "POST", f.URL()+"/keys/1/rotate", first, "")
		require.Equal(t, 200, status)
	}
	assert.Len(t, f.AcceptedTokens(1), 4, "every token of the last six hours")
	clock.Set(time.Now().Add(7 * time.Hour))
	assert.Len(t, f.AcceptedTokens(1), 1)
	auth := "Token " + f.Token()
	status, _, _ := call(t, "POST", f.URL()+"/configs/storage", auth, `{"url":"s3://b","credentials":{}}`)
	require.Equal(t, 201, status)
	status, _, _ = call(t, "POST", f.URL()+"/configs/webhook", auth, `{"url":"https://hooks.example.com/"}`)
	require.Equal(t, 201, status)
	require.Eventually(t, func() bool {
		_, _, m := call(t, "GET", f.URL()+"/configs/webhook/1", auth, "")
		return m["state"] == "invalid"
	}, 5*time.Second, 10*time.Millisecond)
	status, _, _ = call(t, "POST", f.URL()+"/configs/webhook/1", auth, `{"url":"https://other.example.com/","x":1}`)
	require.Equal(t, 200, status)
	trial := f.AddTrialKey(clock.Now().Add(time.Hour))
	assert.Len(t, f.AcceptedTokens(trial), 1)
	_, _, m := call(t, "GET", f.URL()+"/keys?type=trial", auth, "")
	assert.InDelta(t, 1, m["total_count"], 0)
	clock.Advance(2 * time.Hour)
	assert.Empty(t, f.AcceptedTokens(trial), "expired")
	_, _, m = call(t, "GET", f.URL()+"/organisation", auth, "")
	assert.Equal(t, "unconfigured", m["state"], "a webhook is required too")
	status, _, m = call(t, "DELETE", f.URL()+"/configs/webhook/1", auth, "")
	assert.Equal(t, 204, status)
	assert.Empty(t, m)
	f.SetKeyState(1, "blocked")
	status, _, _ = call(t, "GET", f.URL()+"/key", auth, "")
	assert.Equal(t, 403, status)
	assert.Empty(t, f.AcceptedTokens(1))
	assert.Empty(t, f.TokenOf(99))
	assert.Empty(t, f.AcceptedTokens(99))
}

func TestAceDataSpeaksLikeTheGoldenDocuments(t *testing.T) {
	t.Parallel()
	f := keywrighttest.StartAceData(t, keywrighttest.WithMeRefused())
	auth := "Bearer " + f.Token()
	unverified := f.ServiceID()
	f.RequireVerification(unverified)
	base := f.URL() + "/api/v1"
	status, _, m := call(t, "POST", base+"/credentials/", auth, `{"application_id":"`+f.ApplicationID()+`","allowed_api_ids":[],"limited_amount":1}`)
	require.Equal(t, 201, status)
	assert.Equal(t, names(t, "acedata/credential_token_full.json"), keys(m))
	assert.Nil(t, m["allowed_api_ids"], "an empty list is no restriction")
	assert.Len(t, m["token"], 32)
	id, token := m["id"].(string), m["token"].(string)
	probe := func(token string) (int, any) {
		status, _, m := call(t, "GET", f.URL()+keywrighttest.ProbePath, "Bearer "+token, "")
		e, _ := m["error"].(map[string]any)
		return status, e["code"]
	}
	status, _ = probe(token)
	assert.Equal(t, 200, status)
	f.SetUsed(id, 5)
	status, code := probe(token)
	assert.Equal(t, 403, status)
	assert.Equal(t, "used_up", code)
	status, _, m = call(t, "PATCH", base+"/credentials/"+id, auth, `{"limited_amount":null,"expired_at":"2020-01-01T00:00:00Z","host":"ignored"}`)
	require.Equal(t, 200, status)
	assert.Nil(t, m["host"], "cannot be patched")
	status, code = probe(token)
	assert.Equal(t, 401, status)
	assert.Equal(t, "token_expired", code)
	status, _, m = call(t, "POST", base+"/credentials/"+id+"/rotate/", auth, "")
	require.Equal(t, 200, status)
	assert.NotEqual(t, token, m["token"])
	assert.InDelta(t, 5, m["used_amount"], 0, "kept")
	status, code = probe(token)
	assert.Equal(t, 401, status, "dead at once")
	assert.Equal(t, "invalid_token", code)
	for _, want := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/credentials", "", 404, "not_found"}, // collections need their slash
		{"GET", "/credentials/" + id + "/", "", 200, ""},
		{"POST", "/credentials/" + id + "/rotate", "", 404, "not_found"},
		{"PUT", "/credentials/" + id, "{}", 405, "method_not_allowed"},
		{"PATCH", "/applications/" + f.ApplicationID(), "{}", 405, "method_not_allowed"},
		{"PATCH", "/platform-tokens/" + id, "{}", 405, "method_not_allowed"},
		{"GET", "/credentials/" + f.AddForeignCredential(), "", 403, "permission_denied"},
		{"POST", "/credentials/", "{", 400, "parse_error"},
		{"POST", "/credentials/", "{}", 400, "invalid"},
		{"POST", "/credentials/", `{"application_id":"x"}`, 404, "not_found"},
		{"POST", "/credentials/", `{"application_id":"` + f.ApplicationID() + `","limited_amount":"x"}`, 400, "invalid"},
		{"POST", "/credentials/", `{"application_id":"` + f.ApplicationID() + `","expired_at":"tomorrow"}`, 400, "invalid"},
		{"POST", "/applications/", `{"service_id":"x"}`, 404, "*"},
		{"POST", "/applications/", `{}`, 400, "invalid"},
		{"POST", "/applications/", `{"service_id":"` + unverified + `"}`, 403, "need_verify"},
		{"PUT", "/credentials/", "{}", 405, "method_not_allowed"},
		{"GET", "/platform-tokens/me", "", 404, "not_found"},
		{"GET", "/platform-tokens/" + f.AddForeignToken(), "", 403, "permission_denied"},
		{"GET", "/credentials/?user_id=me", "", 400, "invalid"},
		{"GET", "/platform-tokens/?limit=100", "", 403, "permission_denied"}, // one foreign row
		{"GET", "/platform-tokens/me/", "", 200, ""},
		{"DELETE", "/credentials/" + id, "", 204, ""},
		{"DELETE", "/credentials/" + id, "", 404, "not_found"},
	} {
		status, _, m := call(t, want.method, base+want.path, auth, want.body)
		assert.Equal(t, want.status, status, "%s %s", want.method, want.path)
		if want.code == "*" {
			assert.NotEmpty(t, m["code"])
		} else if want.code != "" {
			assert.Equal(t, want.code, m["code"], "%s %s", want.method, want.path)
			assert.Len(t, m["trace_id"], 32)
		}
	}
	_, _, m = call(t, "GET", base+"/platform-tokens/?tag=nope", auth, "")
	assert.InDelta(t, 0, m["count"], 0)
	_, _, m = call(t, "GET", base+"/applications/?user_id=me&affiliation=granted", auth, "")
	assert.InDelta(t, 0, m["count"], 0)
	status, code = probe("")
	assert.Equal(t, 400, status)
	assert.Equal(t, "no_token", code)
	_, _, m = call(t, "POST", base+"/credentials/", auth, `{"application_id":"`+f.ApplicationID()+`"}`)
	f.Disable(f.ApplicationID())
	status, code = probe(m["token"].(string))
	assert.Equal(t, 403, status)
	assert.Equal(t, "disabled", code)
	status, _, m = call(t, "GET", base+"/credentials/", "Bearer wrong", "")
	assert.Equal(t, 401, status)
	assert.Equal(t, "not_authenticated", m["code"])
	assert.Empty(t, f.AcceptedTokens("gone"))
}

func TestFixturePanicsForWhatIsNotThere(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { keywrighttest.Fixture("ricloud/none.json") })
}

func TestSignVectors(t *testing.T) {
	t.Parallel()
	var file struct {
		Vectors []struct {
			Name, Secret, Header string
			Timestamp            int64
			Body                 string `json:"body_utf8"`
		}
	}
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture("ricloud/webhook_signature_vectors.json"), &file))
	require.NotEmpty(t, file.Vectors)
	for _, v := range file.Vectors {
		assert.Equal(t, v.Header, keywrighttest.Sign(v.Secret, time.Unix(v.Timestamp, 0), []byte(v.Body)), v.Name)
	}
}
