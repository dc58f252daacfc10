import { data, ProblemError, Session, SessionEnded } from "@tequipy/client";

const session = new Session({ baseUrl: "https://api.example.com" });

if (!(await session.resume())) {
  await session.login("ada@example.com", "correct horse battery staple");
}
try {
  const me = await data(session.api.GET("/api/v1/auth/me"));
  console.log(me.email);
} catch (error) {
  if (error instanceof SessionEnded) console.log("log in again");
  else if (error instanceof ProblemError) console.log(error.code, error.problem.correlationId);
  else throw error;
}
await session.logout();
