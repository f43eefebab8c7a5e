package keywright_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// answered returns the error of a read that is answered like this.
func answered(t testing.TB, status int, header http.Header, body string) *keywright.APIError {
	t.Helper()
	rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}),
		keywright.WithHTTPClient(&http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: header, Body: readCloser(body), Request: r}, nil
		})}))
	_, err := rc.Key.Current(t.Context())
	var api *keywright.APIError
	require.ErrorAs(t, err, &api)
	return api
}

func TestAPIErrorBodies(t *testing.T) {
	t.Parallel()
	trace := "0a88956213edf6e62b71695ee2df0eff"
	for name, want := range map[string]struct {
		status  int
		code    string
		message string
		fields  map[string][]string
		request string
		class   error
	}{
		"acedata/error_400_bare_string.json":               {400, "", "No file provided", nil, "", keywright.ErrInvalid},
		"acedata/error_400_duplication.json":               {400, "duplication", "Item already exists.", nil, "1a87524f8cbba0b790b2951e2e43117e", keywright.ErrDuplicate},
		"acedata/error_400_duplication_object_detail.json": {400, "duplication", "", map[string][]string{"hostname": {"already bound"}}, trace, keywright.ErrDuplicate},
		"acedata/error_400_field_map_legacy.json":          {400, "", "", map[string][]string{"application_id": {"This field is required."}}, "", keywright.ErrInvalid},
		"acedata/error_400_invalid_detail_map.json":        {400, "invalid", "", map[string][]string{"application_id": {"Must be a valid UUID."}, "limited_amount": {"A valid number is required."}}, trace, keywright.ErrInvalid},
		"acedata/error_400_invalid_string.json":            {400, "invalid", "Invalid input.", nil, trace, keywright.ErrInvalid},
		"acedata/error_400_list.json":                      {400, "", "Proxy application already has a credential.", nil, "", keywright.ErrInvalid},
		"acedata/error_400_parse_error.json":               {400, "parse_error", "JSON parse error - Expecting value: line 1 column 1 (char 0)", nil, trace, keywright.ErrInvalid},
		"acedata/error_400_proxy_single_credential.json":   {400, "invalid", "Application already has a credential.", nil, trace, keywright.ErrInvalid},
		"acedata/error_400_unknown_api_ids.json":           {400, "invalid", "", map[string][]string{"allowed_api_ids": {"Unknown API id."}}, trace, keywright.ErrInvalid},
		"acedata/error_400_usage_history_expired.json":     {400, "usage_history_expired", "", nil, "", keywright.ErrInvalid},
		"acedata/error_401_authentication_failed.json":     {401, "authentication_failed", "Incorrect authentication credentials.", nil, trace, keywright.ErrUnauthorized},
		"acedata/error_401_detail_only.json":               {401, "", "Invalid platform token", nil, "", keywright.ErrUnauthorized},
		"acedata/error_401_not_authenticated.json":         {401, "not_authenticated", "Authentication credentials were not provided.", nil, trace, keywright.ErrUnauthorized},
		"acedata/error_403_need_verify.json":               {403, "need_verify", "This service requires manual verification.", nil, trace, keywright.ErrForbidden},
		"acedata/error_403_permission_denied.json":         {403, "permission_denied", "You do not have permission to perform this action.", nil, trace, keywright.ErrForbidden},
		"acedata/error_403_plain_text.txt":                 {403, "", "forbidden", nil, "", keywright.ErrForbidden},
		"acedata/error_404_not_found.json":                 {404, "not_found", "Not found.", nil, trace, keywright.ErrNotFound},
		"acedata/error_404_service_not_found.json":         {404, "*", "*", nil, "*", keywright.ErrNotFound},
		"acedata/error_405_method_not_allowed.json":        {405, "method_not_allowed", `Method "PATCH" not allowed.`, nil, trace, nil},
		"acedata/error_413_file_too_large.json":            {413, "", "File too large", nil, "", keywright.ErrInvalid},
		"acedata/error_415_unsupported_media_type.json":    {415, "unsupported_media_type", `Unsupported media type "text/plain" in request.`, nil, trace, keywright.ErrInvalid},
		"acedata/error_429_throttled.json":                 {429, "throttled", "Request was throttled. Expected available in 1 second.", nil, trace, keywright.ErrRateLimited},
		"acedata/error_429_usage_query_in_progress.json":   {429, "usage_query_in_progress", "", nil, "", keywright.ErrRateLimited},
		"acedata/error_500_html.html":                      {500, "", "", nil, "", keywright.ErrServer},
		"acedata/error_502_bad_gateway.html":               {502, "", "", nil, "", keywright.ErrServer},
		"acedata/error_503_usage_query_timeout.json":       {503, "usage_query_timeout", "", nil, "", keywright.ErrServer},
		"acedata/gateway_error_401_invalid_token.json":     {401, "invalid_token", "*", nil, "*", keywright.ErrUnauthorized},
		"acedata/gateway_error_403_used_up.json":           {403, "used_up", "*", nil, "*", keywright.ErrForbidden},
		"ricloud/error_invalid_body.json":                  {400, "invalid-body", "*", nil, "", keywright.ErrInvalid},
		"ricloud/error_invalid_parameter.json":             {400, "invalid-parameter", "*", map[string][]string{"storage_config": {"example validation message"}}, "", keywright.ErrInvalid},
		"ricloud/error_limit_exceeded.json":                {403, "limit-exceeded", "*", nil, "", keywright.ErrForbidden},
		"ricloud/error_missing_scope.json":                 {403, "missing-scope", "The key lacks the required scope.", nil, "", keywright.ErrForbidden},
		"ricloud/error_not_found.json":                     {404, "not-found", "*", nil, "", keywright.ErrNotFound},
		"ricloud/error_rate_limited.json":                  {429, "rate-limited", "*", nil, "", keywright.ErrRateLimited},
		"ricloud/error_session_expired.json":               {400, "session-expired", "*", nil, "", keywright.ErrInvalid},
		"ricloud/error_unauthorized.json":                  {401, "unauthorized", "*", nil, "", keywright.ErrUnauthorized},
		"ricloud/error_unconfigured.json":                  {400, "unconfigured", "*", nil, "", keywright.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := keywrighttest.Fixture(name)
			if strings.HasPrefix(name, "ricloud/") {
				var wrapped struct {
					Status int             `json:"_http_status"`
					Body   json.RawMessage `json:"body"`
				}
				require.NoError(t, json.Unmarshal(body, &wrapped))
				require.Equal(t, want.status, wrapped.Status)
				body = wrapped.Body
			}
			e := answered(t, want.status, nil, string(body))
			assert.Equal(t, want.status, e.StatusCode)
			for _, pair := range [][2]string{{want.code, e.Code}, {want.message, e.Message}, {want.request, e.RequestID}} {
				if pair[0] == "*" {
					assert.NotEmpty(t, pair[1])
					continue
				}
				assert.Equal(t, pair[0], pair[1])
			}
			assert.Equal(t, want.fields, e.Fields)
			assert.Equal(t, body, e.Body())
			assert.Equal(t, keywright.Rejected, e.Outcome())
			if want.class != nil {
				require.ErrorIs(t, e, want.class)
			}
			for _, class := range []error{keywright.ErrUnauthorized, keywright.ErrForbidden, keywright.ErrNotFound, keywright.ErrInvalid, keywright.ErrDuplicate, keywright.ErrConflict, keywright.ErrRateLimited, keywright.ErrServer, keywright.ErrOutcomeUnknown} {
				assert.Equal(t, class == want.class, errors.Is(e, class), class)
			}
			oneLine(t, e.Error())
		})
	}
}

func oneLine(t testing.TB, text string) {
	t.Helper()
	assert.NotContains(t, text, "\n")
	assert.Less(t, len(text), 600)
	assert.True(t, utf8.ValidString(text))
	assert.NotRegexp(t, `https?://|<html|\.$`, text)
}

func TestAPIErrorText(t *testing.T) {
	t.Parallel()
	h := http.Header{"X-Request-Id": {"req_1"}, "Retry-After": {"90"}, "Set-Cookie": {"a=b"}, "Date": {"Mon, 01 Jan 2029 00:00:00 GMT"}}
	e := answered(t, 403, h, `{"error":"missing-scope","message":"The key lacks\na \"scope\"."}`)
	assert.Equal(t, `keywright: ricloud key.current: 403 missing-scope: "The key lacks a \"scope\"." (request req_1)`, e.Error())
	assert.Equal(t, 90*time.Second, e.RetryAfter)
	assert.Equal(t, http.Header{"X-Request-Id": {"req_1"}, "Retry-After": {"90"}, "Date": {"Mon, 01 Jan 2029 00:00:00 GMT"}}, e.Header)
	assert.Equal(t, `keywright: ricloud key.current: 418 i'm a teapot`, answered(t, 418, nil, "").Error())
	assert.Equal(t, `keywright: ricloud key.current: 499`, answered(t, 499, nil, "\xff\xfe").Error())
	long := answered(t, 400, nil, `{"message":"`+strings.Repeat("wörter ", 2000)+`"}`)
	assert.Less(t, len(long.Error()), 400)
	assert.LessOrEqual(t, len(long.Message), 4<<10+len("…"))
	many := make(map[string]string)
	for i := range 200 {
		many[fmt.Sprint("field", i)] = "bad"
	}
	b, err := json.Marshal(many)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(answered(t, 400, nil, string(b)).Fields), 32)
	assert.Equal(t, map[string][]string{"a.b": {"deep"}}, answered(t, 400, nil, `{"detail":{"a":{"b":["deep"]}}}`).Fields)
	assert.Equal(t, "one; two", answered(t, 400, nil, `{"detail":["one","two"]}`).Message)
	assert.Equal(t, "expired", answered(t, 400, nil, `{"error":"invalid_grant","error_description":"expired"}`).Message)
	g := answered(t, 429, nil, `{"success":false,"error":{"code":"rate_limited","message":"slow down"},"trace_id":"t-1"}`)
	assert.Equal(t, []string{"rate_limited", "slow down", "t-1"}, []string{g.Code, g.Message, g.RequestID})
	assert.Nil(t, g.Fields)
	u := answered(t, 400, nil, `{"message":"key 550e8400-e29b-41d4-a716-446655440000 and abcdefghij0123456789abcdefghij"}`)
	assert.Equal(t, "key 550e8400-e29b-41d4-a716-446655440000 and [REDACTED]", u.Message)
	big := answered(t, 400, nil, strings.Repeat("x ", 2<<20))
	assert.Len(t, big.Body(), 1<<20)
	conflict := answered(t, 409, nil, `{"code":"duplication"}`)
	require.ErrorIs(t, conflict, keywright.ErrDuplicate)
	require.ErrorIs(t, conflict, keywright.ErrConflict)
}

func TestOutcomeOf(t *testing.T) {
	t.Parallel()
	assert.Equal(t, keywright.Applied, keywright.OutcomeOf(nil))
	assert.Equal(t, keywright.Ambiguous, keywright.OutcomeOf(io.EOF), "anything else is unknown")
	assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(fmt.Errorf("wrapped: %w", &keywright.ParamError{})))
	assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(&keywright.ConfigError{}))
	assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(keywright.ErrNotInitialized))
	assert.Equal(t, keywright.Rejected, keywright.OutcomeOf(&keywright.RedirectError{}))
	for o, text := range map[keywright.Outcome]string{
		keywright.Applied: "applied", keywright.NotSent: "not sent", keywright.Rejected: "rejected", keywright.ResultLost: "result lost",
		keywright.Ambiguous: "ambiguous", keywright.NotApplied: "not applied", 0: "Outcome(0)",
	} {
		assert.Equal(t, text, o.String())
	}
	_, err := (&keywright.APIError{}).Recover(t.Context())
	require.ErrorIs(t, err, keywright.ErrNoReadBack)
	var none *keywright.Recovery
	assert.Nil(t, none.Resource())
	assert.Nil(t, (&keywright.Recovery{}).Resource())
}

func TestZeroClients(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var rc keywright.Ricloud
	var ad keywright.AceData
	rc.CloseIdleConnections()
	ad.CloseIdleConnections()
	for op, call := range wireCalls(t, &rc, &ad) {
		_, err := call(ctx)
		require.ErrorIs(t, err, keywright.ErrNotInitialized, op)
	}
	for op, call := range wireCalls(t, &keywright.Ricloud{Key: &keywright.KeyService{}, WebhookConfig: &keywright.WebhookConfigService{}}, &ad) {
		_, err := call(ctx)
		require.ErrorIs(t, err, keywright.ErrNotInitialized, op)
	}
}

func FuzzAPIError(f *testing.F) {
	for _, s := range []string{`{"error":"x"}`, `{"detail":{"a":["b"]},"code":"invalid"}`, `["a"]`, `"a"`, `<html>`, "", "\xff", `{"error":{"code":1}}`, `{"params":{"a":{"b":{"c":{"d":{"e":["x"]}}}}}}`} {
		f.Add(400, s)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 400 || status > 599 {
			status = 400
		}
		const secret = "some-token-0123456789"
		e := answered(t, status, http.Header{"X-Request-Id": {body}}, body)
		text := e.Error() + e.Message + e.Code + e.RequestID + fmt.Sprint(e.Fields, e.Header)
		if strings.Contains(text, secret) {
			t.Fatalf("the token is shown: %q", text)
		}
		if strings.ContainsAny(e.Error(), "\n\r\x1b\x00") || !utf8.ValidString(e.Error()) {
			t.Fatalf("not one clean line: %q", e.Error())
		}
	})
}
