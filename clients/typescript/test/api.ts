/** A model of the API's session routes, and of a browser's cookie jar. */

export const PASSWORD = "correct horse battery staple";
export const EMAIL = "ada@example.com";

export function problem(status: number, code: string, headers: Record<string, string> = {}, more: object = {}): Response {
  const document = { type: `urn:tequipy:problem:${code}`, status, code, detail: `This is ${code}.`, correlation_id: "c-1", ...more };
  return new Response(JSON.stringify(document), {
    status,
    headers: { "Content-Type": "application/problem+json", ...headers },
  });
}

/** Accepts the newest access token; `answers` are given first, by path. */
export class Api {
  readonly calls: Record<string, number> = {};
  readonly requests: Request[] = [];
  readonly answers: Record<string, Response[]> = {};
  /** Requests to these paths are answered when the promise is settled. */
  readonly held: Record<string, Promise<unknown>> = {};
  number = 0;
  expired = false;
  cookie = false;

  readonly fetch = async (request: Request): Promise<Response> => {
    const path = new URL(request.url).pathname.split("/").at(-1) ?? "";
    this.calls[path] = (this.calls[path] ?? 0) + 1;
    this.requests.push(request.clone());
    await new Promise((resolve) => setImmediate(resolve)); // so that concurrent requests overlap
    await this.held[path];
    const answer = this.answers[path]?.shift();
    if (answer) return answer;
    const authorized = request.headers.get("Authorization") === `Bearer access-${this.number}` && !this.expired;
    const body = (await request.text()) || "null";
    switch (path) {
      case "login":
        return JSON.parse(body).password === PASSWORD ? this.tokens() : problem(401, "invalid_credentials");
      case "reauthenticate":
        if (!authorized) return problem(401, "invalid_token");
        return JSON.parse(body).password === PASSWORD ? this.tokens() : problem(401, "invalid_credentials");
      case "refresh":
        return this.cookie ? this.tokens() : problem(401, "refresh_missing");
      case "logout":
        this.cookie = false;
        return new Response(null, { status: 204 });
    }
    return authorized ? Response.json({ email: EMAIL }) : problem(401, "invalid_token");
  };

  tokens(): Response {
    this.number += 1;
    this.expired = false;
    this.cookie = true;
    return Response.json({ access_token: `access-${this.number}`, token_type: "Bearer", expires_in: 900 });
  }
}
